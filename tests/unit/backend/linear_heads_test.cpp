// Heads with weights of their own (latent attention): every other backend's products against the CPU's.
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "backend/registry.h"
#include "backend_weights.h"
#include "backends_here.h"
#include "conformance_model.h"

namespace mlxs {
namespace {

using test::distance;
using test::random_floats;
using test::weight_of;

class LinearHeads : public testing::TestWithParam<std::string> {};

// Each head's columns through its own weight: of floats, of codes, and of both.
TEST_P(LinearHeads, AsOnTheCpu) {
  constexpr int kHeads = 6, kColumns = 128, kStep = 160, kFirst = 5, kOut = 48,
                kWide = kFirst + kHeads * kStep;
  const std::unique_ptr<Backend> cpu = make_backend("cpu", {.threads = 2}), other = make_backend(GetParam());
  for (const int quantized : {0, 1, kHeads}) {
    for (const int rows : {1, 3, 40}) {
      std::vector<TokenId> tokens(static_cast<std::size_t>(rows));
      std::vector<std::int32_t> positions(tokens.size());
      std::iota(tokens.begin(), tokens.end(), 0);
      std::iota(positions.begin(), positions.end(), 0);
      std::vector<std::vector<float>> results;
      for (Backend* backend : {cpu.get(), other.get()}) {
        std::mt19937 random(3);
        const WeightPtr table =
            weight_of(*backend, random_floats(40 * kWide, 1.0f, 7), 40, WeightUse::kEmbedding);
        std::vector<WeightPtr> weights;
        for (int head = 0; head < kHeads; ++head) {
          if (head < quantized) {
            const cpu::test::RandomWeight weight = cpu::test::random_weight(
                quantized == 1 ? DType::kQ8_0 : DType::kQ4_0, kOut, kColumns, random);
            const RawWeight raw = weight.raw();
            weights.push_back(backend->prepare({&raw, 1}, WeightUse::kMatrix, nullptr));
          } else {
            weights.push_back(weight_of(*backend,
                                        random_floats(kOut * kColumns, 0.1f, 8 + static_cast<unsigned>(head)),
                                        kOut, WeightUse::kMatrix));
          }
        }
        backend->begin_step({tokens, positions, {}, positions, nullptr});
        const Tensor y = backend->linear_heads(backend->embed(*table, 1.0f), kFirst, kStep, weights);
        backend->end_step();
        std::vector<float> out(static_cast<std::size_t>(rows * kHeads * kOut));
        backend->read(y, out);
        results.push_back(std::move(out));
      }
      EXPECT_LT(distance(results[1], results[0]), 1e-2) << quantized << " of codes, " << rows << " rows";
    }
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(LinearHeads);
INSTANTIATE_TEST_SUITE_P(Backends, LinearHeads, testing::ValuesIn(test::other_backends()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
