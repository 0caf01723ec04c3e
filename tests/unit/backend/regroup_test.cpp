// MLX and FP8 weights through the CPU's packing, against their definition written out bit by bit.
#include "backend/cpu/regroup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "backend/cpu/cpu_weight.h"
#include "backend/cpu/float_bits.h"
#include "mlxs/error.h"
#include "random_weights.h"

namespace mlxs::cpu {
namespace {

using ::testing::HasSubstr;

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::vector<float> packed_row(const RawWeight& raw, WeightUse use, std::int64_t row) {
  ThreadPool pool(1);
  const CpuWeight weight(pool, std::span(&raw, 1), use, nullptr);
  std::vector<float> out(static_cast<std::size_t>(raw.columns));
  if (use == WeightUse::kVector) {
    std::copy_n(weight.floats() + row * raw.columns, raw.columns, out.data());
  } else {
    weight.read_row(row, out.data());
  }
  return out;
}

TEST(Regroup, ReadsEveryWidthGroupAndScaleTypeOfMlx) {
  std::mt19937 random(1);
  for (const test::MlxWidth& width : test::kMlxWidths) {
    for (const int group : test::kMlxGroups) {
      for (const DType scale : {DType::kF32, DType::kF16, DType::kBF16}) {
        constexpr std::int64_t kRows = 19, kColumns = 256;
        const test::RandomWeight w = test::random_affine(width, group, scale, kRows, kColumns, random);
        for (const std::int64_t row : {0, 15, 16, 18}) {
          for (const WeightUse use : {WeightUse::kMatrix, WeightUse::kVector}) {
            const auto got = packed_row(w.raw(), use, row);
            for (std::int64_t k = 0; k < kColumns; ++k) {
              ASSERT_EQ(got[static_cast<std::size_t>(k)],
                        w.values[static_cast<std::size_t>(row * kColumns + k)])
                  << width.bits << " bits, group " << group << ", row " << row << ", column " << k;
            }
          }
        }
      }
    }
  }
}

TEST(Regroup, ReadsMxfp4) {
  // E2M1 by its definition: sign, two exponent bits, one mantissa bit.
  const auto e2m1 = [](int code) {
    const int exponent = (code >> 1) & 3, mantissa = code & 1;
    const double size = exponent == 0 ? mantissa * 0.5 : std::ldexp(1.0 + mantissa * 0.5, exponent - 1);
    return (code & 8) != 0 ? -size : size;
  };
  std::vector<std::uint8_t> codes(64 / 2), scales{120, 130};
  for (int i = 0; i < 64; ++i)
    codes[static_cast<std::size_t>(i / 2)] |= static_cast<std::uint8_t>((i * 7 % 16) << i % 2 * 4);
  const auto code_bytes = bytes_of(codes), scale_bytes = bytes_of(scales);
  const RawWeight raw{"w", DType::kMlxFp4, 1, 64, code_bytes, {DType::kE8M0, 32, 1, scale_bytes, {}}};
  const auto got = packed_row(raw, WeightUse::kMatrix, 0);
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(got[static_cast<std::size_t>(i)],
              std::ldexp(e2m1(i * 7 % 16), scales[static_cast<std::size_t>(i / 32)] - 127))
        << i;
  }
}

TEST(Regroup, ReadsBlockScaledFp8) {
  constexpr std::int64_t kRows = 5, kColumns = 48;  // blocks of 4 × 32: ragged on both sides
  std::vector<std::uint8_t> codes;
  std::vector<float> scales{0.5f, 1.0f, 2.0f, 0.25f};
  for (int i = 0; i < kRows * kColumns; ++i)
    codes.push_back(static_cast<std::uint8_t>(i % 127 + i % 2 * 128));
  const auto code_bytes = bytes_of(codes), scale_bytes = bytes_of(scales);
  const RawWeight raw{"w",      DType::kF8E4M3, kRows,
                      kColumns, code_bytes,     {DType::kF32, 32, 4, scale_bytes, {}}};
  for (std::int64_t row = 0; row < kRows; ++row) {
    const auto got = packed_row(raw, WeightUse::kMatrix, row);
    for (std::int64_t k = 0; k < kColumns; ++k) {
      const int code = codes[static_cast<std::size_t>(row * kColumns + k)];
      const int exponent = (code >> 3) & 15, mantissa = code & 7;
      double value = exponent == 0 ? mantissa / 8.0 * 0x1p-6 : (1 + mantissa / 8.0) * std::exp2(exponent - 7);
      if (code >= 128) value = -value;
      EXPECT_EQ(got[static_cast<std::size_t>(k)],
                value * scales[static_cast<std::size_t>(row / 4 * 2 + k / 32)]);
    }
  }
}

TEST(Regroup, SlicesTakeTheirScalesAlong) {
  std::mt19937 random(2);
  const test::RandomWeight w = test::random_affine({DType::kMlx4, 4}, 64, DType::kBF16, 8, 128, random);
  const RawWeight part = slice_rows(w.raw(), 3, 2);
  EXPECT_EQ(packed_row(part, WeightUse::kMatrix, 1), packed_row(w.raw(), WeightUse::kMatrix, 4));
  EXPECT_THROW((void)slice_rows(w.raw(), 7, 2), Error);
  RawWeight shared = w.raw();
  shared.scales.group_rows = 4;
  EXPECT_THROW((void)slice_rows(shared, 2, 2), Error);
}

TEST(Regroup, RefusesScalesThatDoNotFit) {
  std::mt19937 random(2);
  const test::RandomWeight w = test::random_affine({DType::kMlx4, 4}, 64, DType::kBF16, 4, 128, random);
  const auto refusal = [&](auto&& damage) -> std::string {
    RawWeight raw = w.raw();
    damage(raw);
    try {
      (void)packed_row(raw, WeightUse::kMatrix, 0);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kModelLoad);
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(refusal([](RawWeight& r) { r.scales = {}; }),
              HasSubstr("'weight' (MLX4 [4, 128]) has no scales"));
  EXPECT_THAT(refusal([](RawWeight& r) { r.scales.group = 48; }), HasSubstr("has groups of 48"));
  EXPECT_THAT(refusal([](RawWeight& r) { r.scales.scales = r.scales.scales.first(14); }),
              HasSubstr("has 14 bytes of scales instead of 16"));
  EXPECT_THAT(refusal([](RawWeight& r) { r.scales.biases = r.scales.biases.first(14); }),
              HasSubstr("has 14 bytes of biases"));
  EXPECT_THAT(refusal([](RawWeight& r) { r.scales.type = DType::kI8; }), HasSubstr("has I8 scales"));
  EXPECT_THAT(refusal([](RawWeight& r) { r.bytes = r.bytes.first(255); }), HasSubstr("255 bytes instead of"));
}

}  // namespace
}  // namespace mlxs::cpu
