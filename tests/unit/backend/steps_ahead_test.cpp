// Steps that are begun while the one before is under way, and fed with what it draws: the same tokens as
// steps that wait for each other, on every backend that offers it.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>

#include "backend/registry.h"
#include "backend_weights.h"
#include "backends_here.h"

namespace mlxs {
namespace {

using test::random_floats;
using test::weight_of;

constexpr int kHidden = 96, kHeads = 2, kKvHeads = 1, kDim = 64, kVocabulary = 200, kPagesEach = 8;
using Answers = std::vector<std::vector<TokenId>>;  // of each sequence

// One layer of a transformer and three sequences: prompts of several lengths, the last one's in two chunks.
class Model {
 public:
  explicit Model(Backend& backend) : backend_(backend) {
    const auto matrix = [&](int rows, int columns, unsigned seed, WeightUse use = WeightUse::kMatrix) {
      return weight_of(backend,
                       random_floats(static_cast<std::size_t>(rows * columns),
                                     2.0f / std::sqrt(static_cast<float>(columns)), seed),
                       rows, use);
    };
    embedding_ = matrix(kVocabulary, kHidden, 1, WeightUse::kEmbedding);
    head_ = matrix(kVocabulary, kHidden, 2);
    qkv_ = matrix((kHeads + 2 * kKvHeads) * kDim, kHidden, 3);
    out_ = matrix(kHidden, kHeads * kDim, 4);
    gain_ = weight_of(backend, random_floats(kHidden, 0.3f, 5, 1.0f), 1, WeightUse::kVector);
    kv_ = backend.make_kv(
        {.layers = 1, .kv_heads = kKvHeads, .key_dim = kDim, .value_dim = kDim, .num_pages = kPagesEach * 3});
    for (std::size_t s = 0; s < 3; ++s) {
      pages_[s].resize(kPagesEach);
      std::iota(pages_[s].begin(), pages_[s].end(), static_cast<PageId>(s) * kPagesEach);
      for (int i = 0; i < kPrompts[s]; ++i)
        tokens_[s].push_back((31 * static_cast<int>(s) + 7 * i) % kVocabulary);
    }
  }

  // ahead: each step but the first is begun before the one before has ended. leave: now and then one is begun
  // twice, as if an exception had left it at its first op.
  Answers run(int steps, const SampleRow& sampling, bool ahead, bool leave = false) {
    for (int step = 0; step < steps; ++step) {
      const bool behind = ahead && step > 0;
      Host& host = hosts_[step % 2];
      prepare(host, step, behind, sampling);
      if (behind && leave && step % 3 == 1) {
        begin(host);
        backend_.embed(*embedding_, 1.0f);
        if (step % 2 == 0) {  // nobody tries again before the first step ended
          end();
          prepare(host, step, false, sampling);
          launch(host);
          continue;
        }
      }
      launch(host);
      if (behind) end();
      if (!ahead) end();
    }
    while (!under_way_.empty()) end();
    Answers answers;
    for (std::size_t s = 0; s < 3; ++s)
      answers.emplace_back(tokens_[s].begin() + kPrompts[s], tokens_[s].end());
    return answers;
  }

 private:
  static constexpr int kPrompts[] = {5, 17, 40}, kFirstChunk = 16;
  struct Host {  // of one step
    std::vector<TokenId> tokens;
    std::vector<std::int32_t> positions, sampled, fed;
    std::vector<SequenceSpan> spans;
    std::vector<SampleRow> rows;
    std::array<std::vector<TokenCount>, 3> counts;  // of each sequence
    std::vector<std::size_t> of;                    // the sequence of each sampled row
  };

  void prepare(Host& host, int step, bool behind, const SampleRow& sampling) {
    host = {};
    for (std::size_t s = 0; s < 3; ++s) {
      int start = kPrompts[s] - 1 + step, count = 1;
      if (step == 0) start = 0, count = s == 2 ? kFirstChunk : kPrompts[s];
      if (s == 2 && step == 1) start = kFirstChunk, count = kPrompts[s] - kFirstChunk;
      if (s == 2 && step > 1) --start;
      const auto row = static_cast<std::int32_t>(host.tokens.size());
      host.spans.push_back({row, count, start, pages_[s]});
      for (int i = 0; i < count; ++i) {
        const auto at = static_cast<std::size_t>(start + i);
        const bool known = at < tokens_[s].size();
        ASSERT_TRUE(known || behind);
        host.tokens.push_back(known ? tokens_[s][at] : -7);
        host.positions.push_back(start + i);
        host.fed.push_back(known ? -1 : drawn_by_[s]);
      }
      if (start + count < kPrompts[s]) continue;
      host.sampled.push_back(row + count - 1);
      host.rows.push_back(sampling);
      host.rows.back().seed = s;
      host.rows.back().draw = static_cast<std::uint64_t>(start + count - kPrompts[s]);
      for (std::size_t i = 0; i < tokens_[s].size(); ++i) {
        const auto found = std::ranges::find(host.counts[s], tokens_[s][i], &TokenCount::token);
        TokenCount& count_of = found != host.counts[s].end() ? *found : host.counts[s].emplace_back();
        count_of.token = tokens_[s][i];
        count_of.generated += static_cast<int>(i) >= kPrompts[s];
      }
      host.rows.back().counts = host.counts[s];
      host.rows.back().counts_own = host.fed.back() >= 0;
      host.of.push_back(s);
    }
    if (!behind) host.fed.clear();
  }

  void begin(const Host& host) {
    backend_.begin_step(
        {host.tokens, host.positions, host.spans, host.sampled, kv_.get(), program_, host.fed, host.rows});
  }

  void launch(const Host& host) {
    begin(host);
    const NormSpec norm{.gain = gain_.get()};
    const Tensor x = backend_.embed(*embedding_, 1.0f);
    const Tensor qkv = backend_.linear(x, *qkv_, {.norm = &norm});
    const Tensor mixed = backend_.attention(
        qkv, {.heads = kHeads, .kv_heads = kKvHeads, .key_dim = kDim, .value_dim = kDim, .scale = 0.125f});
    const Tensor y = backend_.linear(mixed, *out_, {.residual = x});
    backend_.sample(backend_.logits(backend_.gather_sampled(y), *head_, &norm), host.rows);
    backend_.submit_step();
    drawn_by_.fill(-1);
    for (std::size_t i = 0; i < host.of.size(); ++i) drawn_by_[host.of[i]] = static_cast<std::int32_t>(i);
    under_way_.push_back(&host);
  }

  void end() {
    const std::span<const Sampled> sampled = backend_.end_step();
    const Host& host = *under_way_.front();
    under_way_.erase(under_way_.begin());
    ASSERT_EQ(sampled.size(), host.of.size());
    for (std::size_t i = 0; i < sampled.size(); ++i) {
      ASSERT_FALSE(sampled[i].invalid);
      tokens_[host.of[i]].push_back(sampled[i].token);
    }
  }

  Backend& backend_;
  const std::uint64_t program_ = ++programs_;
  static inline std::uint64_t programs_ = 0x5a5a;
  WeightPtr embedding_, head_, qkv_, out_, gain_;
  std::unique_ptr<KvStore> kv_;
  std::array<std::vector<PageId>, 3> pages_;
  std::array<std::vector<TokenId>, 3> tokens_;
  std::array<std::int32_t, 3> drawn_by_{};  // sampled row of the step that was launched last
  Host hosts_[2];
  std::vector<const Host*> under_way_;
};

std::vector<std::string> backends_ahead() {
  return test::backends_here([](Backend& backend) { return backend.run_ahead() != RunAhead::kNo; });
}

class StepsAhead : public testing::TestWithParam<std::string> {};

TEST_P(StepsAhead, DrawTheSameTokens) {
  constexpr int kSteps = 60;
  const auto backend = make_backend(GetParam());
  const std::vector<TokenBias> bias{{3, 1.0f}, {70, -2.0f}, {71, -100.0f}};
  std::vector<std::uint32_t> allowed((kVocabulary + 31) / 32, 0xfffffff7u);
  allowed[2] = 0;
  for (const int kind : {0, 1, 2, 5, 7}) {
    SCOPED_TRACE(kind);
    SampleRow sampling{.temperature = kind % 2 == 0 ? 0.0f : 0.9f};
    if (kind >= 2) {
      sampling.repetition_penalty = 1.2f;
      sampling.presence_penalty = 0.3f;
      sampling.frequency_penalty = 0.1f;
    }
    if (kind >= 4) sampling.bias = bias;
    if (kind >= 6) sampling.allowed = allowed;
    if (!backend->draws_on_device(sampling)) continue;
    const Answers expected = Model(*backend).run(kSteps, sampling, false);
    ASSERT_EQ(expected[0].size(), static_cast<std::size_t>(kSteps));
    ASSERT_EQ(expected[2].size(), static_cast<std::size_t>(kSteps - 1));
    EXPECT_EQ(Model(*backend).run(kSteps, sampling, true), expected);
    EXPECT_EQ(Model(*backend).run(kSteps, sampling, true, true), expected) << "with steps left in the middle";
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(StepsAhead);
INSTANTIATE_TEST_SUITE_P(Backends, StepsAhead, testing::ValuesIn(backends_ahead()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace mlxs
