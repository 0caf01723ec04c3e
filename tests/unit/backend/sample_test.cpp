// Sampling on every instruction set: candidate sets against a naive reference that sorts everything,
// distributions by chi-square with fixed seeds, and draws that depend on nothing but seed and index.
#include "backend/cpu/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "backend/cpu/sample_random.h"

namespace mlxs::cpu {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// ---------------------------------------------------------------- the naive reference

// The logits after bias, mask and penalties.
std::vector<double> reference_logits(const std::vector<float>& raw, const SampleRow& spec) {
  std::vector<double> x(raw.begin(), raw.end());
  for (std::size_t i = 0; !spec.allowed.empty() && i < x.size(); ++i) {
    const bool in = i / 32 < spec.allowed.size() && ((spec.allowed[i / 32] >> (i % 32)) & 1u) != 0;
    if (!in) x[i] = -static_cast<double>(kInf);
  }
  for (const TokenBias& b : spec.bias) x[static_cast<std::size_t>(b.token)] += static_cast<double>(b.bias);
  for (const TokenCount& c : spec.counts) {
    double& v = x[static_cast<std::size_t>(c.token)];
    const auto penalty = static_cast<double>(spec.repetition_penalty);
    v = v > 0 ? v / penalty : v * penalty;
    if (c.generated > 0) {
      v -= static_cast<double>(spec.presence_penalty) +
           static_cast<double>(spec.frequency_penalty) * c.generated;
    }
  }
  return x;
}

// Probability of every token under the spec; 0 for those cut off. Everything sorted, everything f64.
std::vector<double> reference_probabilities(const std::vector<float>& raw, const SampleRow& spec) {
  const std::vector<double> x = reference_logits(raw, spec);
  std::vector<int> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return x[static_cast<std::size_t>(a)] > x[static_cast<std::size_t>(b)];
  });
  const auto weight = [&](int token) {
    return std::exp((x[static_cast<std::size_t>(token)] - x[static_cast<std::size_t>(order[0])]) /
                    static_cast<double>(spec.temperature));
  };
  if (spec.top_k > 0 && static_cast<std::size_t>(spec.top_k) < order.size()) {
    order.resize(static_cast<std::size_t>(spec.top_k));
  }
  double total = 0;
  for (const int token : order) total += weight(token);
  if (spec.top_p < 1.0f) {
    double sum = 0;
    std::size_t keep = 0;
    while (keep < order.size()) {
      sum += weight(order[keep++]);
      if (sum >= static_cast<double>(spec.top_p) * total) break;
    }
    order.resize(keep);
  }
  std::erase_if(order, [&](int token) { return weight(token) < static_cast<double>(spec.min_p); });
  total = 0;
  for (const int token : order) total += weight(token);
  std::vector<double> p(x.size());
  for (const int token : order) p[static_cast<std::size_t>(token)] = weight(token) / total;
  return p;
}

// Logits as models make them: most tokens far below a few.
std::vector<float> peaked(int vocabulary, unsigned seed, float spread = 3.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> x(static_cast<std::size_t>(vocabulary));
  for (float& v : x) v = normal(random);
  return x;
}

// Every lowering of the path that this processor can run.
std::vector<Isa> isas() {
  std::vector<Isa> all{Isa::kPortable};
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (isa <= detect_isa().best) all.push_back(isa);
  }
  return all;
}

class Sampling : public testing::TestWithParam<Isa> {
 protected:
  Sampled one(const std::vector<float>& logits, const SampleRow& spec) {
    Sampled result;
    sample(pool_, GetParam(), logits.data(), 1, static_cast<int>(logits.size()), {&spec, 1}, {&result, 1},
           scratch_);
    return result;
  }
  // `draws` tokens of the same row with successive draw indices, 64 rows a call.
  std::map<TokenId, int> histogram(const std::vector<float>& logits, SampleRow spec, int draws) {
    constexpr int kRows = 64;
    std::vector<float> rows;
    for (int r = 0; r < kRows; ++r) rows.insert(rows.end(), logits.begin(), logits.end());
    std::vector<SampleRow> specs(kRows, spec);
    std::vector<Sampled> results(kRows);
    std::map<TokenId, int> counts;
    for (int done = 0; done < draws; done += kRows) {
      for (int r = 0; r < kRows; ++r)
        specs[static_cast<std::size_t>(r)].draw = static_cast<std::uint64_t>(done + r);
      sample(pool_, GetParam(), rows.data(), kRows, static_cast<int>(logits.size()), specs, results,
             scratch_);
      for (const Sampled& result : results) {
        EXPECT_FALSE(result.invalid);
        ++counts[result.token];
      }
    }
    return counts;
  }
  // Chi-square of the counts against exact probabilities, rare tokens pooled; returns the z-score of Wilson
  // and Hilferty.
  static double chi_square_z(const std::map<TokenId, int>& counts, const std::vector<double>& p, int draws) {
    double statistic = 0, pooled_expected = 0, pooled_seen = 0;
    int cells = 0;
    const auto add = [&](double expected, double seen) {
      statistic += (seen - expected) * (seen - expected) / expected;
      ++cells;
    };
    for (std::size_t token = 0; token < p.size(); ++token) {
      const auto found = counts.find(static_cast<TokenId>(token));
      const double seen = found == counts.end() ? 0.0 : found->second;
      if (p[token] == 0.0) {
        EXPECT_EQ(seen, 0.0) << "token " << token << " is cut off";
        continue;
      }
      const double expected = p[token] * draws;
      if (expected >= 10) {
        add(expected, seen);
      } else {
        pooled_expected += expected;
        pooled_seen += seen;
      }
    }
    if (pooled_expected > 5) add(pooled_expected, pooled_seen);
    if (cells < 2) return 0;
    const double k = cells - 1;
    return (std::cbrt(statistic / k) - (1 - 2 / (9 * k))) / std::sqrt(2 / (9 * k));
  }

  ThreadPool pool_{2};
  SampleScratch scratch_;
};
INSTANTIATE_TEST_SUITE_P(Cpu, Sampling, testing::ValuesIn(isas()),
                         [](const auto& param) { return std::string(isa_name(param.param)); });

// ---------------------------------------------------------------- greedy

TEST_P(Sampling, GreedyTakesTheFirstOfTheBest) {
  for (const int vocabulary : {1, 2, 15, 16, 17, 1023, 1024, 1025, 8191, 8193, 40000}) {
    std::vector<float> x = peaked(vocabulary, static_cast<unsigned>(vocabulary));
    for (const int v : {0, vocabulary / 3, vocabulary / 2, vocabulary - 1}) {
      std::vector<float> y = x;
      y[static_cast<std::size_t>(v)] = 50.0f;
      y.back() = 50.0f;  // a tie at the end loses
      EXPECT_EQ(one(y, {}).token, v) << vocabulary;
    }
    std::vector<float> low(static_cast<std::size_t>(vocabulary), -kInf);
    low[static_cast<std::size_t>(vocabulary / 2)] = -1e30f;
    EXPECT_EQ(one(low, {}).token, vocabulary / 2);
  }
}

TEST_P(Sampling, GreedyIgnoresTheDistributionsKnobs) {
  const std::vector<float> x = peaked(5000, 3);
  const auto best = static_cast<TokenId>(std::ranges::max_element(x) - x.begin());
  SampleRow spec;
  spec.top_k = 3;
  spec.top_p = 0.1f;
  spec.min_p = 0.9f;
  spec.seed = 9;
  EXPECT_EQ(one(x, spec).token, best);
}

// ---------------------------------------------------------------- bad rows

TEST_P(Sampling, NaNAnywhereMakesTheRowInvalid) {
  for (const int vocabulary : {5, 1000, 40000}) {
    for (const int at : {0, vocabulary / 2, vocabulary - 1}) {
      for (const float temperature : {0.0f, 1.0f}) {
        std::vector<float> x = peaked(vocabulary, 4);
        x[static_cast<std::size_t>(at)] = kNaN;
        SampleRow spec;
        spec.temperature = temperature;
        EXPECT_TRUE(one(x, spec).invalid);
        // A mask that forbids the token does not hide that the row is broken.
        std::vector<std::uint32_t> allowed(static_cast<std::size_t>(vocabulary + 31) / 32, ~0u);
        allowed[static_cast<std::size_t>(at) / 32] &= ~(1u << (at % 32));
        spec.allowed = allowed;
        EXPECT_TRUE(one(x, spec).invalid);
        EXPECT_EQ(one(x, spec).token, -1);
      }
    }
  }
}

TEST_P(Sampling, NothingAllowedIsInvalid) {
  const std::vector<float> none(3000, -kInf);
  const std::vector<float> some = peaked(3000, 5);
  const std::vector<std::uint32_t> nothing(94, 0u);
  for (const float temperature : {0.0f, 0.7f}) {
    SampleRow spec;
    spec.temperature = temperature;
    EXPECT_TRUE(one(none, spec).invalid);
    spec.allowed = nothing;
    EXPECT_TRUE(one(some, spec).invalid);
  }
}

TEST_P(Sampling, InfiniteLogitsShareTheDraw) {
  std::vector<float> x = peaked(3000, 6);
  x[7] = x[1999] = kInf;
  EXPECT_EQ(one(x, {}).token, 7);
  SampleRow spec;
  spec.temperature = 1.0f;
  spec.top_logprobs = 2;
  std::vector<double> p(3000);
  p[7] = p[1999] = 0.5;
  EXPECT_LT(chi_square_z(histogram(x, spec, 2048), p, 2048), 3.0);
  const Sampled result = one(x, spec);
  EXPECT_NEAR(result.logprob, std::log(0.5f), 1e-6f);
  ASSERT_EQ(result.top.size(), 2u);
  EXPECT_EQ(result.top[0].token, 7);
  EXPECT_EQ(result.top[1].token, 1999);
  for (const float p_limit : {0.3f, 0.9f}) {
    spec.top_p = p_limit;
    const TokenId token = one(x, spec).token;
    EXPECT_TRUE(token == 7 || (token == 1999 && p_limit > 0.5f)) << token;
  }
}

TEST_P(Sampling, AModificationWithoutValueIsInvalid) {
  std::vector<float> x = peaked(100, 6);
  x[3] = kInf;
  const std::vector<TokenBias> bias{{3, -kInf}};
  SampleRow spec;
  spec.bias = bias;
  EXPECT_TRUE(one(x, spec).invalid);  // inf - inf
}

TEST_P(Sampling, ExtremeTemperatures) {
  std::vector<float> x = peaked(5000, 8);
  const auto best = static_cast<TokenId>(std::ranges::max_element(x) - x.begin());
  SampleRow spec;
  for (const float cold : {1e-4f, 1e-20f, 1e-44f}) {
    spec.temperature = cold;
    for (spec.draw = 0; spec.draw < 20; ++spec.draw) EXPECT_EQ(one(x, spec).token, best) << cold;
  }
  spec.temperature = 1e30f;  // uniform
  const std::vector<float> few(x.begin(), x.begin() + 50);
  EXPECT_LT(chi_square_z(histogram(few, spec, 6400), std::vector<double>(50, 0.02), 6400), 3.0);
}

// ---------------------------------------------------------------- distributions

struct Knobs {
  const char* what;
  float temperature = 1.0f;
  int top_k = 0;
  float top_p = 1.0f, min_p = 0.0f;
};

TEST_P(Sampling, DrawsFollowTheExactProbabilities) {
  constexpr int kDraws = 3200;
  const Knobs all[] = {
      {"plain"},
      {"cold", 0.5f},
      {"hot", 2.0f},
      {"top_k", 1.0f, 12},
      {"top_k of one", 1.0f, 1},
      {"top_k beyond the vocabulary", 1.0f, 100000},
      {"top_p", 1.0f, 0, 0.7f},
      {"top_p hot", 3.0f, 0, 0.5f},
      {"top_p tiny", 1.0f, 0, 1e-6f},
      {"min_p", 1.0f, 0, 1.0f, 0.05f},
      {"all", 1.3f, 40, 0.8f, 0.02f},
  };
  for (const int vocabulary : {9, 3000, 9500}) {  // one, several and more than a scanned chunk
    const std::vector<float> x = peaked(vocabulary, 21, vocabulary < 100 ? 1.0f : 3.5f);
    for (const Knobs& k : all) {
      SampleRow spec;
      spec.temperature = k.temperature;
      spec.top_k = k.top_k;
      spec.top_p = k.top_p;
      spec.min_p = k.min_p;
      spec.seed = 1234;
      const int draws = vocabulary > 5000 ? kDraws / 2 : kDraws;
      const double z = chi_square_z(histogram(x, spec, draws), reference_probabilities(x, spec), draws);
      EXPECT_LT(z, 3.3) << k.what << ", vocabulary " << vocabulary;
    }
  }
}

TEST_P(Sampling, BiasMaskAndPenaltiesShiftTheDistribution) {
  constexpr int kDraws = 6400;
  const std::vector<float> x = peaked(500, 22, 1.5f);
  std::vector<std::uint32_t> allowed(16, 0x5555ffffu);
  std::vector<TokenBias> bias;
  std::vector<TokenCount> counts;
  for (TokenId t = 0; t < 500; t += 7) bias.push_back({t, t % 2 == 0 ? 1.5f : -2.0f});
  for (TokenId t = 3; t < 500; t += 5) counts.push_back({t, t % 4});
  SampleRow spec;
  spec.temperature = 0.9f;
  spec.seed = 77;
  spec.bias = bias;
  EXPECT_LT(chi_square_z(histogram(x, spec, kDraws), reference_probabilities(x, spec), kDraws), 3.3);
  spec.allowed = allowed;
  EXPECT_LT(chi_square_z(histogram(x, spec, kDraws), reference_probabilities(x, spec), kDraws), 3.3);
  spec.counts = counts;
  spec.repetition_penalty = 1.4f;
  spec.presence_penalty = 0.5f;
  spec.frequency_penalty = 0.3f;
  EXPECT_LT(chi_square_z(histogram(x, spec, kDraws), reference_probabilities(x, spec), kDraws), 3.3);
  spec.top_p = 0.8f;
  EXPECT_LT(chi_square_z(histogram(x, spec, kDraws), reference_probabilities(x, spec), kDraws), 3.3);
  // A short mask allows nothing behind its end.
  const std::vector<std::uint32_t> one_word{0x6u};
  spec.allowed = one_word;
  for (spec.draw = 0; spec.draw < 30; ++spec.draw) {
    const TokenId token = one(x, spec).token;
    EXPECT_TRUE(token == 1 || token == 2) << token;
  }
}

// The greedy token of each modified row: exact, no statistics.
TEST_P(Sampling, ModifiedLogitsAreExact) {
  std::mt19937 random(5);
  for (int round = 0; round < 100; ++round) {
    const int vocabulary = 40 + static_cast<int>(random() % 3000);
    const std::vector<float> x = peaked(vocabulary, static_cast<unsigned>(round), 1.0f);
    std::vector<TokenBias> bias;
    std::vector<TokenCount> counts;
    for (int i = 0; i < 40; ++i) {
      bias.push_back({static_cast<TokenId>(random() % static_cast<unsigned>(vocabulary)),
                      static_cast<float>(random() % 9) - 4.0f});
    }
    for (TokenId t = 0; t < vocabulary; ++t) {
      if (x[static_cast<std::size_t>(t)] > 2.0f)
        counts.push_back({t, static_cast<std::int32_t>(random() % 3)});
    }
    SampleRow spec;
    spec.bias = bias;
    spec.counts = counts;
    spec.repetition_penalty = round % 2 == 0 ? 1.7f : 1.0f;
    spec.presence_penalty = round % 3 == 0 ? 0.9f : 0.0f;
    spec.frequency_penalty = round % 5 == 0 ? 0.7f : 0.0f;
    const std::vector<double> expected = reference_logits(x, spec);
    EXPECT_EQ(one(x, spec).token, std::ranges::max_element(expected) - expected.begin()) << "round " << round;
  }
}

// The set of tokens that can be drawn: all of it appears in enough draws when it is small.
TEST_P(Sampling, CandidateSetsAreExact) {
  std::mt19937 random(15);
  for (int round = 0; round < 60; ++round) {
    const int vocabulary = 20 + static_cast<int>(random() % (round % 10 == 0 ? 20000 : 2500));
    std::vector<float> x(static_cast<std::size_t>(vocabulary), -20.0f);
    // Steps of equal logits make ties at the boundary; equal weights make every member likely.
    const int members = 1 + static_cast<int>(random() % 12);
    for (int i = 0; i < members * 3; ++i) {
      x[random() % static_cast<unsigned>(vocabulary)] = 5.0f - 0.5f * static_cast<float>(i / members);
    }
    SampleRow spec;
    spec.temperature = 1.0f;
    spec.seed = static_cast<std::uint64_t>(round);
    switch (round % 3) {
      case 0:
        spec.top_k = 1 + static_cast<int>(random() % 15);
        break;
      case 1:
        spec.top_p = 0.05f + 0.9f * static_cast<float>(random() % 1000) / 1000.0f;
        break;
      default:
        spec.min_p = 0.45f;
        break;  // ratios are e^-0.5 = 0.61 and e^-1 = 0.37
    }
    const std::vector<double> p = reference_probabilities(x, spec);
    std::set<TokenId> expected, seen;
    double rarest = 1;
    for (std::size_t t = 0; t < p.size(); ++t) {
      if (p[t] > 0) {
        expected.insert(static_cast<TokenId>(t));
        rarest = std::min(rarest, p[t]);
      }
    }
    if (rarest < 0.005) continue;
    for (const auto& [token, count] : histogram(x, spec, 1920)) seen.insert(token);
    EXPECT_EQ(seen, expected) << "round " << round;
  }
}

// ---------------------------------------------------------------- logprobs

TEST_P(Sampling, LogprobsAreOfTheRawRow) {
  for (const int vocabulary : {12, 3000, 40000}) {
    const std::vector<float> x = peaked(vocabulary, 31);
    double sum = 0;
    for (const float v : x) sum += std::exp(static_cast<double>(v));
    std::vector<int> order(x.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return x[static_cast<std::size_t>(a)] > x[static_cast<std::size_t>(b)];
    });
    const std::vector<TokenBias> bias{{order[11], 100.0f}};
    SampleRow spec;
    spec.temperature = 0.5f;
    spec.bias = bias;
    spec.top_logprobs = 20;
    const Sampled result = one(x, spec);
    EXPECT_EQ(result.token, order[11]);
    EXPECT_NEAR(result.logprob,
                static_cast<double>(x[static_cast<std::size_t>(result.token)]) - std::log(sum), 1e-5);
    ASSERT_EQ(result.top.size(), static_cast<std::size_t>(std::min(20, vocabulary)));
    for (std::size_t i = 0; i < result.top.size(); ++i) {
      EXPECT_EQ(result.top[i].token, order[i]);
      EXPECT_NEAR(result.top[i].logprob,
                  static_cast<double>(x[static_cast<std::size_t>(order[i])]) - std::log(sum), 1e-5);
    }
    spec.top_logprobs = 0;
    EXPECT_TRUE(one(x, spec).top.empty());
    EXPECT_NEAR(one(x, spec).logprob, result.logprob, 0);
  }
}

// ---------------------------------------------------------------- determinism

TEST_P(Sampling, ADrawDependsOnItsSeedAndIndexAlone) {
  constexpr int kVocabulary = 40000;
  std::vector<SampleRow> specs;
  std::vector<float> logits;
  std::mt19937 random(2);
  for (int r = 0; r < 12; ++r) {
    const std::vector<float> x = peaked(kVocabulary, static_cast<unsigned>(r) / 2);
    logits.insert(logits.end(), x.begin(), x.end());
    SampleRow spec;
    spec.temperature = 1.2f;
    spec.top_k = r % 3 == 0 ? 50 : 0;
    spec.top_p = r % 2 == 0 ? 0.9f : 1.0f;
    spec.seed = random();
    spec.draw = random();
    specs.push_back(spec);
  }
  std::vector<TokenId> expected;
  for (const int threads : {1, 2, 3, 16}) {
    ThreadPool pool(threads);
    SampleScratch scratch;
    std::vector<Sampled> together(specs.size());
    sample(pool, GetParam(), logits.data(), 12, kVocabulary, specs, together, scratch);
    for (std::size_t r = 0; r < specs.size(); ++r) {
      Sampled alone;  // split over the pool
      sample(pool, GetParam(), logits.data() + r * kVocabulary, 1, kVocabulary, {&specs[r], 1}, {&alone, 1},
             scratch);
      EXPECT_EQ(alone.token, together[r].token);
      if (threads == 1) expected.push_back(alone.token);
      EXPECT_EQ(alone.token, expected[r]) << threads << " threads";
    }
  }
  EXPECT_GT(std::set<TokenId>(expected.begin(), expected.end()).size(), 6u);
}

TEST_P(Sampling, RowsDrawnAgainAreDrawnAsAlone) {
  constexpr int kVocabulary = 40000;  // single rows are split
  std::vector<float> logits;
  for (unsigned row = 0; row < 9; ++row) {
    const std::vector<float> one = peaked(kVocabulary, row);
    logits.insert(logits.end(), one.begin(), one.end());
  }
  std::vector<std::uint32_t> odd((kVocabulary + 31) / 32, 0xaaaaaaaau);
  const auto spec_of = [&](std::size_t i) {
    return SampleRow{.temperature = i % 2 == 0 ? 0.0f : 1.0f, .seed = i, .draw = 7, .allowed = odd};
  };
  for (const std::vector<std::int32_t>& rows : {std::vector{4}, {8, 0}, {1, 2, 3, 5, 6, 8}}) {
    std::vector<Sampled> results(rows.size());
    for (Sampled& result : results) result.token = -5;
    std::vector<int> asked(rows.size());  // each by one thread
    resample(
        pool_, GetParam(), logits.data(), kVocabulary, rows,
        [&](std::size_t i, SampleRow& spec) {
          ++asked[i];
          spec = spec_of(i);
          return i % 3 != 1;
        },
        results, scratch_);
    EXPECT_EQ(asked, std::vector<int>(rows.size(), 1));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto at = logits.begin() + std::ptrdiff_t{rows[i]} * kVocabulary;
      const TokenId expected = i % 3 == 1 ? -5 : one({at, at + kVocabulary}, spec_of(i)).token;
      EXPECT_EQ(results[i].token, expected) << "entry " << i << " of " << rows.size();
    }
  }
}

TEST(SampleRandom, PhiloxKnownAnswers) {  // of the authors' Random123 distribution
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(SampleRandom, DrawsAreUniformAndDiffer) {
  std::set<double> values;
  double sum = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    for (std::uint64_t draw = 0; draw < 100; ++draw) {
      const double u = uniform_draw(seed, draw);
      ASSERT_GE(u, 0.0);
      ASSERT_LT(u, 1.0);
      values.insert(u);
      sum += u;
    }
  }
  for (int bit = 7; bit < 64; ++bit) {
    values.insert(uniform_draw(1, std::uint64_t{1} << bit));
    values.insert(uniform_draw(std::uint64_t{1} << bit, 1));
  }
  EXPECT_EQ(values.size(), 10000u + 2 * 57);  // every bit of both counts
  EXPECT_NEAR(sum / 10000, 0.5, 0.01);
}

}  // namespace
}  // namespace mlxs::cpu
