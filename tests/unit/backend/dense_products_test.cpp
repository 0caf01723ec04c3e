// Products whose columns several blocks of a GPU share, against the CPU's: long sums of few rows, and weights
// so large that 33 to 64 rows take the kernels of many.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <string>

#include "backend/registry.h"
#include "backend_weights.h"
#include "backends_here.h"
#include "random_weights.h"

namespace mlxs {
namespace {

using test::random_floats;
using test::weight_of;

class DenseProducts : public testing::TestWithParam<std::string> {
 protected:
  // With a bias and a residual, as an embedding's rows times the weight.
  void expect_the_cpus(DType type, int outputs, int columns, int rows) {
    std::mt19937 random(21);
    const cpu::test::RandomWeight weight = cpu::test::random_weight(type, outputs, columns, random);
    const auto inputs =
                   random_floats(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns), 1.0f, 5),
               added =
                   random_floats(static_cast<std::size_t>(rows) * static_cast<std::size_t>(outputs), 1.0f, 6),
               biases = random_floats(static_cast<std::size_t>(outputs), 1.0f, 7);
    std::vector<TokenId> tokens(static_cast<std::size_t>(rows));
    std::iota(tokens.begin(), tokens.end(), 0);
    const std::vector<std::int32_t> positions(tokens.begin(), tokens.end());
    std::vector<std::vector<float>> results;
    for (const std::string& name : {std::string("cpu"), GetParam()}) {
      const auto backend = make_backend(name, {.threads = 2});
      const RawWeight raw = weight.raw();
      const WeightPtr w = backend->prepare({&raw, 1}, WeightUse::kMatrix, nullptr),
                      x = weight_of(*backend, inputs, rows, WeightUse::kEmbedding),
                      residual = weight_of(*backend, added, rows, WeightUse::kEmbedding),
                      bias = weight_of(*backend, biases, 1, WeightUse::kVector);
      for (int turn = 0; turn < 2; ++turn) {  // counters are zeros again
        backend->begin_step({tokens, positions, {}, positions, nullptr});
        const Tensor y = backend->linear(backend->embed(*x, 1.0f), *w,
                                         {.bias = bias.get(), .residual = backend->embed(*residual, 1.0f)});
        backend->end_step();
        results.emplace_back(static_cast<std::size_t>(rows) * static_cast<std::size_t>(outputs));
        backend->read(y, results.back());
      }
    }
    double size = 0;
    for (const float value : results[0]) size += static_cast<double>(value) * static_cast<double>(value);
    for (std::size_t turn = 2; turn < 4; ++turn) {
      double off = 0;
      for (std::size_t i = 0; i < results[0].size(); ++i) {
        const double error = static_cast<double>(results[turn][i]) - static_cast<double>(results[0][i]);
        off += error * error;
      }
      EXPECT_LT(std::sqrt(off / size), 0.01)
          << dtype_info(type).name << ", " << rows << " rows";  // bf16 inputs
    }
  }
};

TEST_P(DenseProducts, LongSumsOfFewRowsAreTheCpus) {
  for (const DType type : {DType::kQ4_0, DType::kQ8_0, DType::kBF16}) {
    for (const int rows : {1, 5, 8}) expect_the_cpus(type, 96, 16512, rows);
  }
}

TEST_P(DenseProducts, LargeOnesOf17To64RowsAreTheCpus) {
  for (const DType type : {DType::kQ4_0, DType::kBF16}) {
    for (const int rows : {20, 33, 64}) expect_the_cpus(type, 3088, 4096, rows);
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DenseProducts);
INSTANTIATE_TEST_SUITE_P(Backends, DenseProducts, testing::ValuesIn(test::other_backends()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
