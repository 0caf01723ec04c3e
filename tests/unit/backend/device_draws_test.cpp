// Rows that a backend draws on its device, against the CPU's sampler on the same logits: the same tokens for
// the same seeds, among equal logits, infinite ones and NaN, too.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <string>

#include "backend/cpu/sample.h"
#include "backend/registry.h"
#include "backend_weights.h"
#include "backends_here.h"
#include "base/thread_pool.h"

namespace mlxs {
namespace {

using test::random_floats;
using test::weight_of;

constexpr int kHidden = 64, kRows = 12;

std::vector<SampleRow> rows_of(std::uint64_t draw) {
  const SampleRow kinds[] = {
      {.temperature = 0.8f},
      {.temperature = 2.5f},
      {.temperature = 0.7f, .top_k = 40},
      {.temperature = 1.5f, .top_k = 1},
      {.temperature = 1.0f, .top_p = 0.9f},
      {.temperature = 3.0f, .top_p = 0.97f},
      {.temperature = 0.01f, .top_p = 1e-6f},
      {.temperature = 1.0f, .min_p = 0.05f},
      {},
      {.temperature = 1.2f, .top_k = 300, .top_p = 0.8f},
      {.temperature = 2.0f, .top_k = 7, .top_p = 0.95f, .min_p = 0.2f},
      {.temperature = 1.0f, .top_k = 1 << 20, .top_p = 0.999f, .min_p = 0.001f},
  };
  std::vector<SampleRow> rows(std::begin(kinds), std::end(kinds));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].seed = 77 + i;
    rows[i].draw = draw;
    rows[i].top_logprobs = std::array{-1, 0, 3, 20}[i % 4];
  }
  return rows;
}

class DeviceDraws : public testing::TestWithParam<std::string> {
 protected:
  // Steps whose logits are those of `head` for inputs of 1, or random ones; the last ones of a program.
  void expect_the_cpus(const std::vector<float>& head, bool ones) {
    const auto vocabulary = static_cast<int>(head.size()) / kHidden;
    const auto backend = make_backend(GetParam());
    const WeightPtr weights = weight_of(*backend, head, vocabulary, WeightUse::kMatrix);
    const WeightPtr embedding = weight_of(
        *backend, ones ? std::vector<float>(kHidden * kRows, 1.0f) : random_floats(kHidden * kRows, 1.0f, 3),
        kRows, WeightUse::kEmbedding);
    std::vector<TokenId> tokens(kRows);
    std::iota(tokens.begin(), tokens.end(), 0);
    const std::vector<std::int32_t> positions(kRows), all(tokens.begin(), tokens.end());
    std::vector<SequenceSpan> sequences;
    for (int i = 0; i < kRows; ++i) sequences.push_back({i, 1, 0, {}});
    ThreadPool pool(2);
    cpu::SampleScratch scratch;
    for (std::uint64_t step = 0; step < 5; ++step) {
      const std::vector<SampleRow> rows = rows_of(step);
      for (const SampleRow& row : rows) ASSERT_TRUE(backend->draws_on_device(row));
      backend->begin_step({tokens, positions, sequences, all, nullptr, step == 0 ? 0ull : 1ull, {}, rows});
      const Tensor logits =
          backend->logits(backend->gather_sampled(backend->embed(*embedding, 1.0f)), *weights, nullptr);
      backend->sample(logits, rows);
      const std::span<const Sampled> drawn = backend->end_step();
      std::vector<float> values(static_cast<std::size_t>(kRows * vocabulary));
      backend->read({logits.handle, kRows, vocabulary}, values);
      std::vector<Sampled> expected(kRows);
      cpu::sample(pool, cpu::choose_isa(), values.data(), kRows, vocabulary, rows, expected, scratch);
      ASSERT_EQ(drawn.size(), expected.size());
      for (std::size_t i = 0; i < drawn.size(); ++i) {
        EXPECT_EQ(drawn[i].invalid, expected[i].invalid) << "row " << i << ", step " << step;
        EXPECT_EQ(drawn[i].token, expected[i].token) << "row " << i << ", step " << step;
        if (rows[i].top_logprobs < 0 || expected[i].invalid) continue;
        EXPECT_NEAR(drawn[i].logprob, expected[i].logprob, 1e-3f) << "row " << i << ", step " << step;
        ASSERT_EQ(drawn[i].top.size(), expected[i].top.size()) << "row " << i << ", step " << step;
        for (std::size_t n = 0; n < expected[i].top.size(); ++n) {
          EXPECT_EQ(drawn[i].top[n].token, expected[i].top[n].token) << "row " << i << ", best " << n;
          EXPECT_NEAR(drawn[i].top[n].logprob, expected[i].top[n].logprob, 1e-3f)
              << "row " << i << ", best " << n;
        }
      }
    }
  }
};

TEST_P(DeviceDraws, AreTheCpusDraws) {
  for (const int vocabulary : {200, 1023, 20000}) {
    SCOPED_TRACE(vocabulary);
    expect_the_cpus(random_floats(static_cast<std::size_t>(vocabulary * kHidden), 0.4f, 1), false);
  }
}

TEST_P(DeviceDraws, AmongEqualLogitsAreTheCpus) {
  constexpr int kVocabulary = 9000, kDifferent = 37;
  const std::vector<float> some = random_floats(kDifferent * kHidden, 0.3f, 2);
  std::vector<float> head;
  for (int i = 0; i < kVocabulary; ++i) {
    const auto from = some.begin() + i * i % kDifferent * kHidden;
    head.insert(head.end(), from, from + kHidden);
  }
  expect_the_cpus(head, false);
  std::ranges::fill(head, 0.5f);
  expect_the_cpus(head, false);
}

TEST_P(DeviceDraws, OfInfiniteLogitsAndNaNAreTheCpus) {
  constexpr int kVocabulary = 1100;
  std::vector<float> head = random_floats(kVocabulary * kHidden, 0.2f, 4);
  const auto set = [&](int token, float value) {
    std::fill_n(head.begin() + token * kHidden, kHidden, value);
  };
  for (const int token : {3, 700, 1099}) set(token, -1e37f);
  expect_the_cpus(head, true);
  for (const int token : {7, 500, 1098}) set(token, 1e37f);
  expect_the_cpus(head, true);
  set(1050, std::numeric_limits<float>::quiet_NaN());
  expect_the_cpus(head, true);
}

std::vector<std::string> drawing_backends() {
  std::vector<std::string> names =
      test::backends_here([](Backend& backend) { return backend.draws_on_device({.temperature = 1.0f}); });
  std::erase(names, "cpu");  // what they are compared with
  return names;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DeviceDraws);
INSTANTIATE_TEST_SUITE_P(Backends, DeviceDraws, testing::ValuesIn(drawing_backends()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
