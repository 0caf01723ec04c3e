// Rows that a backend draws on its device, against the CPU's sampler on the same logits: the same tokens for
// the same seeds, among equal logits, infinite ones and NaN, too; with every mixture of penalties, bias and
// mask.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

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

// A row, and what it points to.
struct Row {
  SampleRow spec;
  std::vector<TokenBias> bias = {};
  std::vector<TokenCount> counts = {};
  std::vector<std::uint32_t> allowed = {};
};
using Rows = std::vector<Row>;

Rows rows_of(std::uint64_t draw) {
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
  Rows rows;
  for (const SampleRow& kind : kinds) {
    const std::size_t i = rows.size();
    SampleRow& row = rows.emplace_back(kind).spec;
    row.seed = 77 + i;
    row.draw = draw;
    row.top_logprobs = std::array{-1, 0, 3, 20}[i % 4];
  }
  return rows;
}

// Adjusted at random. kinds: 1 draws, 2 log probabilities, 4 masks, and never what is not among them.
Rows adjusted_rows(int kinds, int vocabulary, unsigned seed) {
  std::mt19937 random(seed);
  const auto one_of = [&](auto... values) {
    const std::array all{values...};
    return all[random() % all.size()];
  };
  std::vector<TokenId> tokens(static_cast<std::size_t>(vocabulary) + 4);
  std::iota(tokens.begin(), tokens.end(), -2);  // some that are none
  const auto some = [&](std::size_t most, auto add) {
    std::ranges::shuffle(tokens, random);
    const std::size_t count = random() % (std::min(most, tokens.size()) + 1);
    for (std::size_t i = 0; i < count; ++i) add(tokens[i]);
  };
  Rows rows(kRows);
  for (Row& row : rows) {
    SampleRow& spec = row.spec;
    spec.seed = random();
    if ((kinds & 1) != 0) {
      spec.temperature = one_of(0.0f, 0.7f, 2.5f);
      spec.top_k = one_of(0, 0, 1, 40);
      spec.top_p = one_of(1.0f, 0.9f);
      spec.min_p = one_of(0.0f, 0.0f, 0.05f);
    }
    if ((kinds & 2) != 0) spec.top_logprobs = one_of(-1, 0, 3, 20);
    spec.repetition_penalty = one_of(1.0f, 1.1f, 0.8f, 30.0f);
    spec.presence_penalty = one_of(0.0f, 0.5f, -1.0f);
    spec.frequency_penalty = one_of(0.0f, 0.3f, -0.1f);
    if (random() % 3 > 0) some(1500, [&](TokenId id) { row.counts.push_back({id, one_of(0, 0, 1, 7)}); });
    spec.counts_own = random() % 2 == 0;
    const float infinity = std::numeric_limits<float>::infinity();
    if (random() % 3 == 0)
      some(700, [&](TokenId id) { row.bias.push_back({id, one_of(1.5f, -2.0f, 0.1f, -infinity)}); });
    if ((kinds & 4) != 0 && random() % 3 > 0) {
      row.allowed.resize(static_cast<std::size_t>(vocabulary + 31) / 32);
      const auto kind = random() % 5;
      for (std::uint32_t& word : row.allowed) {
        const auto bits = static_cast<std::uint32_t>(kind == 2 ? random() & random() & random() : random());
        word = kind == 0 ? 0 : kind == 1 ? ~0u : bits;
      }
      if (kind == 3) row.allowed.resize(1 + row.allowed.size() / 2);  // the rest is not allowed
    }
  }
  return rows;
}

class DeviceDraws : public testing::TestWithParam<std::string> {
 protected:
  // Steps whose logits are those of `head` for inputs of 1, or random ones.
  template <class RowsOf>
  void expect_the_cpus(const std::vector<float>& head, bool ones, RowsOf rows_of, int steps = 4) {
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
    std::vector<SampleRow> rows;
    // Masks come after the model's ops.
    const auto run = [&](std::uint64_t program, const Rows& of) {
      std::vector<std::vector<std::uint32_t>> masks;
      rows.clear();
      for (const Row& row : of) {
        rows.push_back(row.spec);
        rows.back().bias = row.bias;
        rows.back().counts = row.counts;
        rows.back().allowed = masks.emplace_back(row.allowed.size(), 0x5a5a5a5au);
      }
      backend->begin_step({tokens, positions, sequences, all, nullptr, program, {}, rows});
      const Tensor logits =
          backend->logits(backend->gather_sampled(backend->embed(*embedding, 1.0f)), *weights, nullptr);
      for (std::size_t i = 0; i < of.size(); ++i) {
        std::ranges::copy(of[i].allowed, masks[i].begin());
        rows[i].allowed = of[i].allowed;
      }
      backend->sample(logits, rows);
      return logits;
    };
    std::vector<float> values(static_cast<std::size_t>(kRows * vocabulary));
    const Tensor raw = run(0, Rows(kRows));
    backend->end_step();
    backend->read({raw.handle, kRows, vocabulary}, values);
    for (int step = 0; step < steps; ++step) {
      const Rows wanted = rows_of(static_cast<unsigned>(step));
      for (const Row& row : wanted) ASSERT_TRUE(backend->draws_on_device(row.spec));
      run(1, wanted);
      const std::span<const Sampled> drawn = backend->end_step();
      std::vector<std::vector<TokenCount>> counts;
      for (std::size_t i = 0; i < rows.size(); ++i) {
        if (rows[i].counts_own)
          rows[i].counts = counts.emplace_back(cpu::with_own(rows[i].counts, tokens[i]));
      }
      std::vector<Sampled> expected(kRows);
      cpu::sample(pool, cpu::choose_isa(), values.data(), kRows, vocabulary, rows, expected, scratch);
      ASSERT_EQ(drawn.size(), expected.size());
      for (std::size_t i = 0; i < drawn.size(); ++i) {
        EXPECT_EQ(drawn[i].invalid, expected[i].invalid) << "row " << i << ", step " << step;
        EXPECT_EQ(drawn[i].token, expected[i].token) << "row " << i << ", step " << step;
        if (rows[i].top_logprobs < 0 || expected[i].invalid) continue;
        if (drawn[i].logprob != expected[i].logprob) {  // as infinities are
          EXPECT_NEAR(drawn[i].logprob, expected[i].logprob, 1e-3f) << "row " << i << ", step " << step;
        }
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
    expect_the_cpus(random_floats(static_cast<std::size_t>(vocabulary * kHidden), 0.4f, 1), false, rows_of);
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
  expect_the_cpus(head, false, rows_of);
  std::ranges::fill(head, 0.5f);
  expect_the_cpus(head, false, rows_of);
}

TEST_P(DeviceDraws, OfInfiniteLogitsAndNaNAreTheCpus) {
  constexpr int kVocabulary = 1100;
  std::vector<float> head = random_floats(kVocabulary * kHidden, 0.2f, 4);
  const auto set = [&](int token, float value) {
    std::fill_n(head.begin() + token * kHidden, kHidden, value);
  };
  for (const int token : {3, 700, 1099}) set(token, -1e37f);
  expect_the_cpus(head, true, rows_of);
  for (const int token : {7, 500, 1098}) set(token, 1e37f);
  expect_the_cpus(head, true, rows_of);
  set(1050, std::numeric_limits<float>::quiet_NaN());
  expect_the_cpus(head, true, rows_of);
}

TEST_P(DeviceDraws, OfAdjustedLogitsAreTheCpus) {
  unsigned seed = 1;
  const auto expect = [&](int vocabulary, int kinds) {
    SCOPED_TRACE(testing::Message() << vocabulary << ", kinds " << kinds);
    const std::vector<float> head = random_floats(static_cast<std::size_t>(vocabulary * kHidden), 0.4f, 5);
    const auto rows = [&](unsigned) { return adjusted_rows(kinds, vocabulary, seed++); };
    expect_the_cpus(head, false, rows, 3);
  };
  for (int kinds = 0; kinds < 8; ++kinds) expect(201, kinds);
  expect(1023, 7);
  expect(9001, 7);
}

TEST_P(DeviceDraws, OfAdjustedInfinitiesAndNaNAreTheCpus) {
  constexpr int kVocabulary = 1100;
  std::vector<float> head = random_floats(kVocabulary * kHidden, 0.2f, 6);
  const auto set = [&](int token, float value) {
    std::fill_n(head.begin() + token * kHidden, kHidden, value);
  };
  unsigned seed = 1000;
  const auto rows = [&](unsigned) { return adjusted_rows(7, kVocabulary, seed++); };
  for (const int token : {3, 700, 1099}) set(token, -1e37f);
  expect_the_cpus(head, true, rows, 2);
  for (const int token : {7, 500, 1098}) set(token, 1e37f);
  expect_the_cpus(head, true, rows, 2);
  set(1050, std::numeric_limits<float>::quiet_NaN());
  expect_the_cpus(head, true, rows, 2);
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
