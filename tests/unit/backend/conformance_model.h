// A small model written with the op set, and ragged steps for it: what conformance tests of backends run.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "backend/ops.h"
#include "backend_weights.h"
#include "random_weights.h"

namespace mlxs::test {

struct AttentionCase {
  const char* name;
  int heads = 4, kv_heads = 2, key_dim = 64, value_dim = 64, rope_dims = 64;
  bool interleaved = false, norms = false, unit_offset = false, sinks = false, causal = true;
  int window = 0;
  float soft_cap = 0;
  bool only_first = false;  // the window is the first layer's alone
  int window_pages = 0;     // of the first layer's own; 0: it has none
};

// A sequence of steps over pages in scattered order, as a scheduler would plan them: chunks, decode rows,
// both.
struct Steps {
  struct Sequence {
    std::vector<PageId> pages;
    int done = 0;
  };
  struct Step {
    std::vector<TokenId> tokens;
    std::vector<std::int32_t> positions, sampled;
    std::vector<SequenceSpan> spans;
  };
  std::vector<Sequence> sequences;
  int vocabulary;

  Steps(int count, int vocab, int pages = 8) : vocabulary(vocab) {
    std::vector<PageId> order(static_cast<std::size_t>(count) * static_cast<std::size_t>(pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(5));
    for (int i = 0; i < count; ++i)
      sequences.push_back({{order.begin() + i * pages, order.begin() + (i + 1) * pages}, 0});
  }
  Step next(const std::vector<int>& counts) {  // rows of each sequence; 0: not in this step
    Step step;
    for (std::size_t s = 0; s < counts.size(); ++s) {
      if (counts[s] == 0) continue;
      Sequence& sequence = sequences[s];
      step.spans.push_back(
          {static_cast<std::int32_t>(step.tokens.size()), counts[s], sequence.done, sequence.pages});
      for (int i = 0; i < counts[s]; ++i) {
        step.positions.push_back(sequence.done + i);
        step.tokens.push_back(
            static_cast<TokenId>((7 * s + 13 * static_cast<std::size_t>(sequence.done + i)) %
                                 static_cast<std::size_t>(vocabulary)));
      }
      sequence.done += counts[s];
      step.sampled.push_back(static_cast<std::int32_t>(step.tokens.size()) - 1);
    }
    return step;
  }
};

// A block of a transformer with everything an op can fuse, two layers deep: logits of every step's sampled
// rows.
class TinyBlock {
 public:
  static constexpr int kHidden = 96, kFeedForward = 160, kVocabulary = 64;

  TinyBlock(Backend& backend, const AttentionCase& c, DType kv_type = DType::kBF16)
      : backend_(backend), case_(c) {
    const int q = c.heads * c.key_dim, k = c.kv_heads * c.key_dim, v = c.kv_heads * c.value_dim;
    unsigned seed = 1;
    const auto matrix = [&](int rows, int columns) {
      const auto count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
      return weight_of(backend, random_floats(count, 1.0f / std::sqrt(static_cast<float>(columns)), seed++),
                       rows, WeightUse::kMatrix);
    };
    const auto vector = [&](int columns, float around) {
      return weight_of(backend, random_floats(static_cast<std::size_t>(columns), 0.2f, seed++, around), 1,
                       WeightUse::kVector);
    };
    embedding_ = weight_of(backend, random_floats(kVocabulary * kHidden, 1.0f, seed++), kVocabulary,
                           WeightUse::kEmbedding);
    qkv_ = matrix(q + k + v, kHidden);
    qkv_bias_ = vector(q + k + v, 0.0f);
    out_ = matrix(kHidden, c.heads * c.value_dim);
    gate_up_ = matrix(2 * kFeedForward, kHidden);
    down_ = matrix(kHidden, kFeedForward);
    gain_ = vector(kHidden, 1.0f);
    const float around = c.unit_offset ? 0.0f : 1.0f;
    query_gain_ = vector(c.key_dim, around);
    key_gain_ = vector(c.key_dim, around);
    sinks_ = vector(c.heads, 0.5f);
    for (int i = 0; i < c.rope_dims / 2; ++i) {
      frequencies_.push_back(static_cast<float>(std::pow(10000.0, -2.0 * i / c.rope_dims)));
    }
    kv_ = backend.make_kv(
        {.layers = 2,
         .kv_heads = c.kv_heads,
         .key_dim = c.key_dim,
         .value_dim = c.value_dim,
         .num_pages = 64,
         .type = kv_type,
         .windowed = c.window_pages > 0 ? std::vector<bool>{true, false} : std::vector<bool>{},
         .num_window_pages = c.window_pages});
  }

  // program: as Batch's. sampling: of each row, greedy.
  std::vector<float> run(const Steps::Step& step, std::uint64_t program = 0, const SampleRow& sampling = {}) {
    backend_.begin_step({step.tokens, step.positions, step.spans, step.sampled, kv_.get(), program});
    const NormSpec norm{.gain = gain_.get(), .epsilon = 1e-5f};
    const NormSpec query_norm{.gain = query_gain_.get(), .epsilon = 1e-6f, .unit_offset = case_.unit_offset};
    const NormSpec key_norm{.gain = key_gain_.get(), .epsilon = 1e-6f, .unit_offset = case_.unit_offset};
    AttentionSpec attention{.heads = case_.heads,
                            .kv_heads = case_.kv_heads,
                            .key_dim = case_.key_dim,
                            .value_dim = case_.value_dim,
                            .scale = 1.0f / std::sqrt(static_cast<float>(case_.key_dim)),
                            .rope = {.dims = case_.rope_dims,
                                     .interleaved = case_.interleaved,
                                     .inverse_frequencies = frequencies_,
                                     .magnitude = 1.1f},
                            .query_norm = case_.norms ? &query_norm : nullptr,
                            .key_norm = case_.norms ? &key_norm : nullptr,
                            .causal = case_.causal,
                            .window = case_.window,
                            .soft_cap = case_.soft_cap,
                            .sinks = case_.sinks ? sinks_.get() : nullptr};
    Tensor x = backend_.embed(*embedding_, 1.5f);
    for (attention.layer = 0; attention.layer < 2; ++attention.layer) {
      if (attention.layer == 1 && case_.only_first) attention.window = 0;
      const Tensor qkv =
          backend_.linear(x, *qkv_, {.norm = &norm, .bias = qkv_bias_.get(), .for_attention = true});
      const Tensor mixed = backend_.attention(qkv, attention);
      backend_.release(qkv);
      x = backend_.linear(mixed, *out_, {.residual = x});
      backend_.release(mixed);
      const Activation activation = attention.layer == 0 ? Activation::kSilu : Activation::kGeluTanh;
      const Tensor gated =
          backend_.linear(x, *gate_up_, {.norm = &norm, .activation = activation, .gated = true});
      x = backend_.linear(gated, *down_, {.residual = x});
      backend_.release(gated);
    }
    const Tensor logits =
        backend_.logits(backend_.gather_sampled(backend_.norm(x, norm)), *embedding_, &norm, 30.0f);
    std::vector<float> result(step.sampled.size() * kVocabulary);
    backend_.sample(logits, std::vector<SampleRow>(step.sampled.size(), sampling));
    const std::span<const Sampled> sampled = backend_.end_step();
    backend_.read(logits, result);
    for (std::size_t row = 0; row < sampled.size(); ++row) {
      const auto begin = result.begin() + static_cast<std::ptrdiff_t>(row) * kVocabulary;
      EXPECT_EQ(sampled[row].token, std::max_element(begin, begin + kVocabulary) - begin);
    }
    return result;
  }
  void copy_page(PageId from, PageId to) { backend_.copy_page(*kv_, from, to); }
  void copy_window_page(PageId from, PageId to) { backend_.copy_window_page(*kv_, from, to); }
  KvStore& kv() { return *kv_; }

 private:
  Backend& backend_;
  AttentionCase case_;
  WeightPtr embedding_, qkv_, qkv_bias_, out_, gate_up_, down_, gain_, query_gain_, key_gain_, sinks_;
  std::vector<float> frequencies_;
  std::unique_ptr<KvStore> kv_;
};

// Of the logits' spread, which is of order 1 to 10.
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0, spread = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    spread += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(error / spread);
}

}  // namespace mlxs::test
