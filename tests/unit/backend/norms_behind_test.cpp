// Products with a norm behind them (linear_add_norm), which a backend may do as one: what comes of them and
// of a product that reads it, against the same backend's product and norm and against the CPU's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "backend/registry.h"
#include "backend_weights.h"
#include "backends_here.h"
#include "weight_forms.h"

namespace mlxs {
namespace {

using test::random_floats;
using test::weight_of;

struct Case {
  std::string_view form = "BF16";
  int outputs = 192, columns = 128, rows = 1;
  bool bias = false, next = true;
};

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double off = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    off += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(off / size);
}

class Chain {
 public:
  Chain(Backend& backend, const Case& c) : backend_(backend), case_(c) {
    const auto forms = cpu::test::all_forms();
    const auto form = std::ranges::find(forms, c.form, &cpu::test::Form::name);
    EXPECT_NE(form, forms.end()) << c.form;
    std::mt19937 random(3);
    const cpu::test::RandomWeight raw_weight = form->make(c.outputs, c.columns, random);
    const RawWeight raw = raw_weight.raw();
    weight_ = backend.prepare({&raw, 1}, WeightUse::kMatrix, nullptr);
    const auto outputs = static_cast<std::size_t>(c.outputs), rows = static_cast<std::size_t>(c.rows);
    std::vector<float> stream = random_floats(rows * outputs, 1.0f, 5);
    for (std::size_t i = 0; i < stream.size(); ++i)  // rows unlike each other
      stream[i] *= std::exp2(static_cast<float>(i / outputs % 5) - 2.0f);
    inputs_ = weight_of(backend, random_floats(rows * static_cast<std::size_t>(c.columns), 1.0f, 4), c.rows,
                        WeightUse::kEmbedding);
    stream_ = weight_of(backend, stream, c.rows, WeightUse::kEmbedding);
    last_ = weight_of(backend, random_floats(48 * outputs, 0.1f, 6), 48, WeightUse::kMatrix);
    gain_ = weight_of(backend, random_floats(outputs, 0.5f, 7), 1, WeightUse::kVector);
    next_gain_ = weight_of(backend, random_floats(outputs, 0.5f, 8, 1.0f), 1, WeightUse::kVector);
    bias_ = weight_of(backend, random_floats(outputs, 0.5f, 9), 1, WeightUse::kVector);
  }

  // Twice the norm behind the product, so that the second finds what the first left; then a product.
  // as_one: as the backend does it, or as linear() and add_norm().
  std::vector<std::vector<float>> run(bool as_one) {
    std::vector<TokenId> tokens(static_cast<std::size_t>(case_.rows));
    std::iota(tokens.begin(), tokens.end(), 0);
    const std::vector<std::int32_t> positions(tokens.begin(), tokens.end());
    const NormSpec norm{.gain = gain_.get(), .epsilon = 1e-5f, .unit_offset = true},
        next_norm{.gain = next_gain_.get(), .epsilon = 1e-6f};
    const NextSpec next = case_.next ? NextSpec{.norm = &next_norm, .weight = last_.get()} : NextSpec{};
    const Weight* bias = case_.bias ? bias_.get() : nullptr;
    backend_.begin_step({tokens, positions, {}, positions, nullptr});
    std::vector<std::vector<float>> results;
    Tensor x = backend_.embed(*inputs_);
    Tensor sum = backend_.embed(*stream_);
    for (int turn = 0; turn < 2; ++turn) {
      sum = as_one ? backend_.linear_add_norm(x, *weight_, bias, norm, sum, next)
                   : backend_.Backend::linear_add_norm(x, *weight_, bias, norm, sum, next);
      keep(results, sum);
    }
    keep(results, backend_.linear(sum, *last_, {.norm = &next_norm}));
    keep(results, backend_.linear(sum, *last_, {.norm = &norm}));  // not what it was made for
    backend_.end_step();
    return results;
  }

 private:
  void keep(std::vector<std::vector<float>>& results, Tensor tensor) {
    results.emplace_back(static_cast<std::size_t>(tensor.rows) * static_cast<std::size_t>(tensor.columns));
    backend_.read(tensor, results.back());
  }

  Backend& backend_;
  Case case_;
  WeightPtr weight_, inputs_, stream_, last_, gain_, next_gain_, bias_;
};

class NormsBehind : public testing::TestWithParam<std::string> {
 protected:
  void expect_alike(const Case& c) {
    SCOPED_TRACE(testing::Message() << c.form << ", " << c.outputs << " outputs of " << c.columns << ", "
                                    << c.rows << " rows" << (c.bias ? ", bias" : "")
                                    << (c.next ? "" : ", nothing next"));
    Chain reference(*cpu_, c), tried(*other_, c);
    const auto cpus = reference.run(true), apart = tried.run(false), got = tried.run(true);
    for (std::size_t n = 0; n < got.size(); ++n) {
      EXPECT_LT(distance(got[n], cpus[n]), 0.02) << "result " << n;  // bf16 inputs
      // The stream's sums differ in their order alone; what a product reads is bf16, rounded before or after
      // it is divided.
      EXPECT_LT(distance(got[n], apart[n]), n < 2 ? 1e-6 : 0.005) << "result " << n << " beside two ops";
    }
  }
  std::unique_ptr<Backend> cpu_ = make_backend("cpu", {.threads = 2}), other_ = make_backend(GetParam());
};

TEST_P(NormsBehind, AreTheSameOfEveryForm) {
  for (const std::string_view form : {"BF16", "Q4_0", "Q6_K", "Q8_0", "mlx4_g64", "mlx8_g32", "fp8"}) {
    for (const int rows : {1, 3}) expect_alike({.form = form, .outputs = 256, .columns = 256, .rows = rows});
  }
}

TEST_P(NormsBehind, AreTheSameOfAnyNumberOfRows) {
  for (const int rows : {1, 2, 4, 5, 7, 8, 9, 33}) {
    expect_alike({.form = "Q4_0", .rows = rows, .bias = rows % 2 == 1});
    expect_alike({.outputs = 200, .columns = 72, .rows = rows, .next = rows % 2 == 0});
  }
}

TEST_P(NormsBehind, AreTheSameOfLongRows) {
  for (const int rows : {1, 2, 8}) {
    expect_alike({.form = "Q4_0", .outputs = 1544, .columns = 96, .rows = rows, .bias = true});
    expect_alike({.form = "Q8_0", .outputs = 2080, .columns = 64, .rows = rows});
  }
}

TEST_P(NormsBehind, AreTheSameOfLongSums) {
  for (const std::string_view form : {"Q4_0", "BF16"}) {
    for (const int rows : {1, 4, 8})
      expect_alike({.form = form, .outputs = 96, .columns = 16512, .rows = rows, .bias = true});
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(NormsBehind);
INSTANTIATE_TEST_SUITE_P(Backends, NormsBehind, testing::ValuesIn(test::other_backends()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
