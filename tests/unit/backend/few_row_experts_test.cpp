// Mixtures whose experts have a few rows each and 4-bit weights, as decoding ones do, against the CPU
// backend: sums of several lengths, groups of 32 and 64, experts that most rows choose, and that none does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "backend/ops.h"
#include "backend/registry.h"
#include "backend_weights.h"
#include "backends_here.h"
#include "base/dtype.h"

namespace mlxs {
namespace {

using test::random_floats;
using test::weight_of;

// Codes, scales and biases as mlx-lm stores them; values of about 1 / √columns.
WeightPtr four_bits(Backend& backend, int rows, int columns, int group, unsigned seed) {
  const auto count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  std::mt19937 random(seed);
  std::vector<std::byte> codes(count / 2);
  for (std::byte& byte : codes) byte = static_cast<std::byte>(random() >> 11);
  const float unit = 0.2f / std::sqrt(static_cast<float>(columns));
  const std::size_t groups = count / static_cast<std::size_t>(group);
  const std::vector<float> scales = random_floats(groups, 0.2f * unit, seed + 1, unit),
                           biases = random_floats(groups, unit, seed + 2, -7.5f * unit);
  const RawWeight raw{.name = "w",
                      .type = DType::kMlx4,
                      .rows = rows,
                      .columns = columns,
                      .bytes = codes,
                      .scales = {.type = DType::kF32,
                                 .group = group,
                                 .scales = std::as_bytes(std::span(scales)),
                                 .biases = std::as_bytes(std::span(biases))}};
  return backend.prepare({&raw, 1}, WeightUse::kMatrix, nullptr);
}

struct Mixture {
  int hidden, wide, group;
  bool biases = false;
};

// tokens: rows of the same token choose the same experts.
std::vector<float> run(Backend& backend, const Mixture& m, const std::vector<TokenId>& tokens) {
  constexpr int kExperts = 8, kUsed = 2, kVocabulary = 64;
  const auto hidden = static_cast<std::size_t>(m.hidden);
  const WeightPtr table =
      weight_of(backend, random_floats(kVocabulary * hidden, 1.0f, 1), kVocabulary, WeightUse::kEmbedding);
  const WeightPtr router =
      weight_of(backend, random_floats(kExperts * hidden, 3.0f / std::sqrt(static_cast<float>(m.hidden)), 2),
                kExperts, WeightUse::kMatrix);
  std::vector<Expert> experts;
  for (unsigned e = 0; e < kExperts; ++e) {
    Expert expert{.gate_up = four_bits(backend, 2 * m.wide, m.hidden, m.group, 100 + 10 * e),
                  .down = four_bits(backend, m.hidden, m.wide, m.group, 105 + 10 * e)};
    if (m.biases) {
      expert.gate_up_bias = weight_of(
          backend, random_floats(2 * static_cast<std::size_t>(m.wide), 0.3f, 300 + e), 1, WeightUse::kVector);
      expert.down_bias = weight_of(backend, random_floats(hidden, 0.3f, 400 + e), 1, WeightUse::kVector);
    }
    experts.push_back(std::move(expert));
  }
  backend.join_experts(experts);
  std::vector<std::int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  backend.begin_step({tokens, positions, {}, positions, nullptr});
  const Tensor y = backend.moe(backend.embed(*table), {.router = router.get(),
                                                       .experts = experts,
                                                       .used = kUsed,
                                                       .normalize = true,
                                                       .residual = backend.embed(*table)});
  backend.end_step();
  std::vector<float> out(tokens.size() * hidden);
  backend.read(y, out);
  return out;
}

class FewRowExperts : public testing::TestWithParam<std::string> {};

TEST_P(FewRowExperts, AreTheCpusMixtures) {
  const std::unique_ptr<Backend> cpu = make_backend("cpu", {.threads = 2}), other = make_backend(GetParam());
  // Sums of 4, 3, 12, 2, 32, 48, whose largest team has no room, and, which no team shares evenly, 7 units of
  // 64; outputs enough that blocks begin before they know who has rows.
  for (const Mixture& m : {Mixture{256, 192, 64, true}, Mixture{768, 256, 32}, Mixture{2048, 64, 64},
                           Mixture{3072, 64, 64}, Mixture{448, 128, 64}}) {
    for (const int rows : {3, 16}) {
      std::vector<TokenId> tokens(static_cast<std::size_t>(rows));
      for (int i = 0; i < rows; ++i) tokens[static_cast<std::size_t>(i)] = i < 11 ? 5 : i;  // eleven alike
      const std::vector<float> expected = run(*cpu, m, tokens), got = run(*other, m, tokens);
      double worst = 0, size = 0;
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double error = std::abs(static_cast<double>(got[i]) - expected[i]);
        ASSERT_FALSE(std::isnan(error));
        worst = std::max(worst, error);
        size = std::max(size, std::abs(static_cast<double>(expected[i])));
      }
      EXPECT_LT(worst, 0.02 * size) << m.hidden << " by " << m.wide << ", groups of " << m.group << ", "
                                    << rows << " rows";
    }
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(FewRowExperts);
INSTANTIATE_TEST_SUITE_P(Backends, FewRowExperts, testing::ValuesIn(test::other_backends()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
