// Results whose next reader norms them (NextSpec), as a chain of a layer's ops makes them, against the CPU
// backend: a backend may divide by the root mean square in the reader, or norm as it writes.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "backend_weights.h"
#include "backends_here.h"
#include "random_weights.h"

namespace mlxs {
namespace {

using test::random_floats;
using test::weight_of;

struct Sizes {
  int hidden, wide;
  DType type;
  bool mixture = false;
};
constexpr int kExperts = 8, kUsed = 2;

WeightPtr random_matrix(Backend& backend, DType type, int rows, int columns, unsigned seed) {
  std::mt19937 random(seed);
  const cpu::test::RandomWeight weight = cpu::test::random_weight(type, rows, columns, random);
  const RawWeight raw = weight.raw();
  return backend.prepare({&raw, 1}, WeightUse::kMatrix, nullptr);
}

// Rows that are not alike in size go through a product into the stream, a mixture or a dense block, a norm
// behind a block, and a last product; everything that these give.
std::vector<std::vector<float>> run(Backend& backend, const Sizes& s, int rows) {
  const auto hidden = static_cast<std::size_t>(s.hidden), count = static_cast<std::size_t>(rows);
  std::vector<float> inputs = random_floats(count * hidden, 1.0f, 1);
  for (std::size_t i = 0; i < inputs.size(); ++i)
    inputs[i] *= std::exp2(static_cast<float>(i / hidden % 7) - 3.0f);
  const WeightPtr table = weight_of(backend, inputs, rows, WeightUse::kEmbedding);
  const WeightPtr out = random_matrix(backend, s.type, s.hidden, s.hidden, 2),
                  gate_up = random_matrix(backend, s.type, 2 * s.wide, s.hidden, 3),
                  down = random_matrix(backend, s.type, s.hidden, s.wide, 4),
                  last = random_matrix(backend, s.type, s.hidden + 32, s.hidden, 5);
  const WeightPtr gain = weight_of(backend, random_floats(hidden, 0.5f, 6), 1, WeightUse::kVector),
                  other_gain =
                      weight_of(backend, random_floats(hidden, 0.5f, 7, 1.0f), 1, WeightUse::kVector),
                  bias = weight_of(backend, random_floats(2 * static_cast<std::size_t>(s.wide), 0.5f, 8), 1,
                                   WeightUse::kVector);
  const NormSpec norm{.gain = gain.get(), .epsilon = 1e-5f, .unit_offset = true},
      other{.gain = other_gain.get(), .epsilon = 1e-6f};
  WeightPtr router;
  std::vector<Expert> experts;
  if (s.mixture) {
    router = weight_of(backend, random_floats(kExperts * hidden, 0.3f, 9), kExperts, WeightUse::kMatrix);
    for (unsigned e = 0; e < kExperts; ++e) {
      experts.push_back({.gate_up = random_matrix(backend, s.type, 2 * s.wide, s.hidden, 20 + e),
                         .down = random_matrix(backend, s.type, s.hidden, s.wide, 40 + e)});
    }
    backend.join_experts(experts);
  }
  std::vector<TokenId> tokens(count);
  std::iota(tokens.begin(), tokens.end(), 0);
  const std::vector<std::int32_t> positions(tokens.begin(), tokens.end());
  backend.begin_step({tokens, positions, {}, positions, nullptr});
  std::vector<std::vector<float>> results;
  const auto keep = [&](Tensor tensor) {
    results.emplace_back(count * static_cast<std::size_t>(tensor.columns));
    backend.read(tensor, results.back());
  };
  const Weight* reader = s.mixture ? router.get() : gate_up.get();
  Tensor x = backend.embed(*table);
  x = backend.linear(backend.embed(*table, 0.5f), *out,
                     {.residual = x, .next = {.norm = &norm, .weight = reader}});
  keep(x);
  if (s.mixture) {
    x = backend.moe(x, {.norm = &norm,
                        .router = router.get(),
                        .experts = experts,
                        .used = kUsed,
                        .normalize = true,
                        .residual = x,
                        .next = {.norm = &other, .weight = last.get()}});
  } else {
    const Tensor gated = backend.linear(
        x, *gate_up, {.norm = &norm, .bias = bias.get(), .activation = Activation::kSilu, .gated = true});
    keep(gated);
    x = backend.linear(gated, *down, {.residual = x, .next = {.norm = &other, .weight = last.get()}});
  }
  keep(x);
  keep(backend.linear(x, *last, {.norm = &other}));
  keep(backend.linear(x, *last, {.norm = &norm}));  // not the norm that it was made for
  const Tensor block = backend.linear(x, *out);
  x = backend.add_norm(block, other, x, {.norm = &norm, .weight = last.get()});
  keep(x);
  keep(backend.linear(x, *last, {.norm = &norm}));
  backend.end_step();
  return results;
}

class NextNorms : public testing::TestWithParam<std::string> {
 protected:
  void expect_the_cpus(const Sizes& sizes, int rows) {
    const std::unique_ptr<Backend> cpu = make_backend("cpu", {.threads = 2}),
                                   other = make_backend(GetParam());
    const auto expected = run(*cpu, sizes, rows), got = run(*other, sizes, rows);
    ASSERT_EQ(expected.size(), got.size());
    for (std::size_t n = 0; n < got.size(); ++n) {
      double size = 0, off = 0;
      for (std::size_t i = 0; i < got[n].size(); ++i) {
        const double error = static_cast<double>(got[n][i]) - static_cast<double>(expected[n][i]);
        off += error * error;
        size += static_cast<double>(expected[n][i]) * static_cast<double>(expected[n][i]);
      }
      EXPECT_LT(std::sqrt(off / size), 0.03) << "result " << n << " of " << rows << " rows, "
                                             << dtype_info(sizes.type).name << " " << sizes.hidden;
    }
  }
};

TEST_P(NextNorms, OfDenseBlocksAreTheCpus) {
  for (const int rows : {1, 3, 8, 13, 33, 64, 70}) {
    expect_the_cpus({192, 128, DType::kQ4_0}, rows);
    expect_the_cpus({160, 96, DType::kBF16}, rows);
  }
}

TEST_P(NextNorms, OfMixturesAreTheCpus) {
  for (const int rows : {1, 2, 5, 12, 30, 64}) expect_the_cpus({256, 128, DType::kQ4_0, true}, rows);
  expect_the_cpus({192, 96, DType::kBF16, true}, 9);
}

TEST_P(NextNorms, OfLargeWeightsAreTheCpus) {
  for (const int rows : {1, 8, 16, 32, 64}) expect_the_cpus({3104, 4096, DType::kQ4_0}, rows);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(NextNorms);
INSTANTIATE_TEST_SUITE_P(Backends, NextNorms, testing::ValuesIn(test::other_backends()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
