// Weights in FP8 (e4m3) with a scale a block, or a row: every other backend's products against the CPU's, and
// on GPUs the bytes that they take.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "backend/registry.h"
#include "backend_weights.h"
#include "backends_here.h"
#include "conformance_model.h"
#include "fp8_weight.h"

namespace mlxs {
namespace {

using test::distance;
using test::Fp8;
using test::random_floats;
using test::weight_of;

class Fp8Weights : public testing::TestWithParam<std::string> {
 protected:
  // embedding, then linear() and a gated one behind a norm.
  static std::vector<std::vector<float>> run(Backend& backend, const Fp8& weight, int rows) {
    const RawWeight raw = weight.raw();
    const WeightPtr table = backend.prepare({&raw, 1}, WeightUse::kEmbedding, nullptr),
                    gain = weight_of(backend,
                                     random_floats(static_cast<std::size_t>(weight.columns), 0.3f, 9, 1.0f),
                                     1, WeightUse::kVector);
    std::vector<TokenId> tokens(static_cast<std::size_t>(rows));
    for (int i = 0; i < rows; ++i) tokens[static_cast<std::size_t>(i)] = i * 17 % weight.rows;
    std::vector<std::int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), 0);
    const NormSpec norm{.gain = gain.get()};
    backend.begin_step({tokens, positions, {}, positions, nullptr});
    const Tensor x = backend.embed(*table, 1000.0f);
    const Tensor y = backend.linear(x, *table),
                 gated = backend.linear(x, *table, {.norm = &norm, .gated = true});
    backend.end_step();
    std::vector<std::vector<float>> results;
    for (const Tensor& tensor : {x, y, gated}) {
      results.emplace_back(static_cast<std::size_t>(tensor.rows) * static_cast<std::size_t>(tensor.columns));
      backend.read(tensor, results.back());
    }
    return results;
  }
};

TEST_P(Fp8Weights, AsOnTheCpu) {
  const std::unique_ptr<Backend> cpu = make_backend("cpu", {.threads = 2}), other = make_backend(GetParam());
  std::mt19937 random(31);
  const Fp8 weights[] = {{96, 512, 128, 128, random},
                         {160, 1408, 128, 64, random},
                         {96, 320, 320, 1, random},    // a scale a row
                         {48, 296, 128, 128, random},  // columns that no unit divides
                         {32, 288, 96, 16, random}};   // blocks that units do not divide
  for (const Fp8& weight : weights) {
    for (const int rows : {1, 4, 12, 30, 40, 130, 1030}) {
      if (rows > 1000 && &weight != weights) continue;  // once is enough
      const auto expected = run(*cpu, weight, rows), got = run(*other, weight, rows);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_LT(distance(got[i], expected[i]), i == 2 ? 2e-2 : 1e-2)
            << weight.rows << " x " << weight.columns << ", " << rows << " rows, result " << i;
      }
    }
  }
}

TEST_P(Fp8Weights, NoNumberStaysInItsRow) {
  const std::unique_ptr<Backend> other = make_backend(GetParam());
  std::mt19937 random(32);
  Fp8 weight(32, 256, 128, 128, random);
  weight.codes[5 * 256 + 200] = std::byte{0xff};
  for (const int rows : {1, 40}) {
    const RawWeight raw = weight.raw();
    const WeightPtr matrix = other->prepare({&raw, 1}, WeightUse::kMatrix, nullptr),
                    table = weight_of(*other, random_floats(40 * 256, 1.0f, 4), 40, WeightUse::kEmbedding);
    std::vector<TokenId> tokens(static_cast<std::size_t>(rows));
    std::vector<std::int32_t> positions(tokens.size());
    std::iota(tokens.begin(), tokens.end(), 0);
    std::iota(positions.begin(), positions.end(), 0);
    other->begin_step({tokens, positions, {}, positions, nullptr});
    const Tensor y = other->linear(other->embed(*table, 1.0f), *matrix);
    other->end_step();
    std::vector<float> out(static_cast<std::size_t>(rows) * 32);
    other->read(y, out);
    for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i % 32 == 5) << i;
  }
}

TEST_P(Fp8Weights, TakeHalfOfBf16) {
  if (GetParam() != "cuda") GTEST_SKIP() << "widened there";
  const std::unique_ptr<Backend> other = make_backend(GetParam());
  std::mt19937 random(33);
  const WeightPtr wide = weight_of(*other, std::vector<float>(128 * 1024, 1.0f), 128, WeightUse::kMatrix);
  const Fp8 kept(128, 1024, 128, 128, random);
  const RawWeight narrow = kept.raw();
  const WeightPtr packed = other->prepare({&narrow, 1}, WeightUse::kMatrix, nullptr);
  EXPECT_EQ(wide->packed_bytes(), std::size_t{128} * 1024 * 2);
  EXPECT_EQ(packed->packed_bytes(), std::size_t{128} * (1024 + 1024 / 64 * 4));
  EXPECT_EQ(other->packed_size(narrow, WeightUse::kMatrix), packed->packed_bytes());
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Fp8Weights);
INSTANTIATE_TEST_SUITE_P(Backends, Fp8Weights, testing::ValuesIn(test::other_backends()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
