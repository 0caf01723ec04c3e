// Mixtures whose experts are in FP8, gates and ups of a weight each, against the CPU's: of one row, of few
// and of many rows an expert; scales of the usual blocks, of a row, and of blocks that fit nothing. The rows
// are those whose experts no rounding changes.
#include <gtest/gtest.h>

#include <algorithm>
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

using test::Fp8;
using test::random_floats;
using test::weight_of;

constexpr int kExperts = 8, kUsed = 2, kVocabulary = 64;

struct Layer {
  int hidden, wide, group, group_rows;
  std::vector<float> table, router;
  std::vector<Fp8> gates, ups, downs;
  std::vector<TokenId> clear;  // tokens whose second best expert is well ahead of the third

  Layer(int hidden_, int wide_, int group_, int group_rows_)
      : hidden(hidden_), wide(wide_), group(group_), group_rows(group_rows_) {
    const auto columns = static_cast<std::size_t>(hidden);
    table = random_floats(kVocabulary * columns, 1.0f, 1);
    router = random_floats(kExperts * columns, 1.0f / std::sqrt(static_cast<float>(hidden)), 2);
    std::mt19937 random(41);
    const auto size = [](int inputs) { return 1.0f / (113.0f * std::sqrt(static_cast<float>(inputs))); };
    for (int e = 0; e < kExperts; ++e) {
      for (std::vector<Fp8>* of : {&gates, &ups})
        of->emplace_back(wide, hidden, std::min(group, hidden), group_rows, random, size(hidden));
      downs.emplace_back(hidden, wide, std::min(group, wide), group_rows, random, size(wide));
    }
    for (TokenId token = 0; token < kVocabulary; ++token) {
      const float* x = &table[static_cast<std::size_t>(token) * columns];
      std::vector<double> logits;
      for (std::size_t e = 0; e < kExperts; ++e)
        logits.push_back(std::inner_product(x, x + hidden, &router[e * columns], 0.0));
      std::ranges::sort(logits, std::greater());
      if (logits[kUsed - 1] - logits[kUsed] > 0.1) clear.push_back(token);
    }
  }

  std::vector<float> run(Backend& backend, int rows) const {
    const WeightPtr embedding = weight_of(backend, table, kVocabulary, WeightUse::kEmbedding),
                    routing = weight_of(backend, router, kExperts, WeightUse::kMatrix);
    std::vector<Expert> experts;
    for (std::size_t e = 0; e < kExperts; ++e) {
      const RawWeight gate_up[] = {gates[e].raw(), ups[e].raw()}, down = downs[e].raw();
      experts.push_back({.gate_up = backend.prepare(gate_up, WeightUse::kMatrix, nullptr),
                         .down = backend.prepare({&down, 1}, WeightUse::kMatrix, nullptr)});
    }
    backend.join_experts(experts);
    std::vector<TokenId> tokens(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = clear[i * 7 % clear.size()];
    std::vector<std::int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), 0);
    backend.begin_step({tokens, positions, {}, positions, nullptr});
    const Tensor y = backend.moe(backend.embed(*embedding), {.router = routing.get(),
                                                             .experts = experts,
                                                             .used = kUsed,
                                                             .normalize = true,
                                                             .residual = backend.embed(*embedding, 0.1f)});
    backend.end_step();
    std::vector<float> out(tokens.size() * static_cast<std::size_t>(hidden));
    backend.read(y, out);
    return out;
  }
};

class Fp8Experts : public testing::TestWithParam<std::string> {};

TEST_P(Fp8Experts, AsOnTheCpu) {
  const std::unique_ptr<Backend> cpu = make_backend("cpu", {.threads = 2}), other = make_backend(GetParam());
  const Layer layers[] = {{256, 128, 128, 128},
                          {384, 192, 128, 64},    // the last block of the sums is half a one
                          {320, 96, 320, 1},      // a scale a row
                          {288, 160, 96, 16},     // blocks that units do not divide
                          {256, 104, 128, 128}};  // gates that end within a tile
  for (const Layer& layer : layers) {
    ASSERT_GE(layer.clear.size(), 20u);
    for (const int rows : {1, 2, 3, 16, 40, 130}) {  // of an expert: one, one, about 1, 4, 10 and 33
      const std::vector<float> expected = layer.run(*cpu, rows), got = layer.run(*other, rows);
      const std::size_t columns = static_cast<std::size_t>(layer.hidden);
      for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
        const auto of = [&](const std::vector<float>& all) {
          const auto begin = all.begin() + static_cast<std::ptrdiff_t>(row * columns);
          return std::vector<float>(begin, begin + static_cast<std::ptrdiff_t>(columns));
        };
        EXPECT_LT(test::distance(of(got), of(expected)), 1e-2)
            << layer.hidden << " by " << layer.wide << ", blocks of " << layer.group << " by "
            << layer.group_rows << ", row " << row << " of " << rows;
      }
    }
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Fp8Experts);
INSTANTIATE_TEST_SUITE_P(Backends, Fp8Experts, testing::ValuesIn(test::other_backends()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
