// Packing keeps every weight: what comes back out of a panel is what the plain dequantizer reads from the
// file's bytes.
#include "backend/cpu/pack.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "backend/cpu/cpu_weight.h"
#include "backend/cpu/dequantize.h"
#include "random_weights.h"

namespace mlxs::cpu {
namespace {

TEST(FloatBits, F16RoundTripsAndRoundsToEven) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = f16_to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(value))));
    } else {
      EXPECT_EQ(float_to_f16(value), half) << bits;
    }
  }
  EXPECT_EQ(float_to_f16(65519.0f), 0x7bff);
  EXPECT_EQ(float_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_f16(1.0f + 0x1p-11f), 0x3c00);    // halfway: to even
  EXPECT_EQ(float_to_f16(1.0f + 0x1.8p-10f), 0x3c02);  // halfway: to even
  EXPECT_EQ(float_to_f16(0x1p-25f), 0x0000);           // half of the smallest subnormal: to even
  EXPECT_EQ(float_to_f16(0x1.8p-25f), 0x0001);
  EXPECT_EQ(float_to_f16(-0x1.ff8p-15f), 0x83ff);
  EXPECT_EQ(float_to_f16(-0.0f), 0x8000);
}

TEST(FloatBits, Bf16RoundsToEvenAndKeepsNan) {
  EXPECT_EQ(float_to_bf16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.0f + 0x1.8p-7f), 0x3f82);
  EXPECT_EQ(float_to_bf16(3.4e38f), 0x7f80);
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Pack, EveryTypeComesBack) {
  std::mt19937 random(1);
  ThreadPool pool(2);
  for (const DType type : test::kWeightTypes) {
    for (const std::int64_t rows : {1, 16, 37}) {
      const std::int64_t columns = 768;
      const test::RandomWeight w = test::random_weight(type, rows, columns, random);
      const RawWeight raw = w.raw();
      const CpuWeight packed(pool, {&raw, 1}, WeightUse::kEmbedding, nullptr);
      std::vector<float> expected(columns), actual(columns);
      for (std::int64_t row = 0; row < rows; ++row) {
        dequantize_row(type, w.bytes.data() + static_cast<std::size_t>(row) * row_bytes(type, columns),
                       columns, expected.data());
        packed.read_row(row, actual.data());
        for (std::size_t k = 0; k < expected.size(); ++k) {
          // Exact, but for the scales of K types: two roundings to f16 of what adds up to at most `largest`.
          const bool k_type = dtype_info(type).block_elements == 256;
          ASSERT_NEAR(actual[k], expected[k], k_type ? 0x1p-11 * w.largest : 1e-6 * std::abs(expected[k]))
              << dtype_info(type).name << " row " << row << " column " << k;
        }
      }
    }
  }
}

TEST(Pack, SizesAreWhatTheLayoutPromises) {
  // Bits a weight: code bits + 16-bit scales and mins a group.
  EXPECT_EQ(panel_bytes(Packing::k4Min, 576), 576u * 16 * 5 / 8);
  EXPECT_EQ(panel_bytes(Packing::k8, 1024), 1024u * 16 * 17 / 16);
  EXPECT_EQ(panel_bytes(Packing::k6Group16, 1024), 1024u * 16 * 7 / 8);
  EXPECT_EQ(panel_bytes(Packing::kBF16, 33), 64u * 16 * 2);
}

TEST(Pack, VectorsBecomeFloats) {
  std::mt19937 random(2);
  ThreadPool pool(1);
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    const test::RandomWeight w = test::random_weight(type, 1, 96, random);
    const RawWeight raw = w.raw();
    const CpuWeight packed(pool, {&raw, 1}, WeightUse::kVector, nullptr);
    std::vector<float> expected(96);
    dequantize_row(type, w.bytes.data(), 96, expected.data());
    EXPECT_EQ(std::vector<float>(packed.floats(), packed.floats() + 96), expected);
  }
}

}  // namespace
}  // namespace mlxs::cpu
