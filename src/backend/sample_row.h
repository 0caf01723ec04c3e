// How a row of logits becomes a token: what a row may ask for, and what was drawn. Values, which
// Backend::sample() (ops.h) reads and fills and the engine makes of a request's sampling parameters; spans
// are the caller's, until the step has ended.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/types.h"

namespace mlxs {

struct TokenBias {
  TokenId token;
  float bias;
};
struct TokenCount {
  TokenId token;
  std::int32_t generated;  // times it was generated so far; 0: it only stands in the prompt
};

// One row's sampling. Order: bias and mask → penalties → temperature → top_k → top_p → min_p → draw.
struct SampleRow {
  float temperature = 0.0f;         // 0: greedy, ties to the lowest id
  std::int32_t top_k = 0;           // 0: off
  float top_p = 1.0f;               // 1: off
  float min_p = 0.0f;               // 0: off
  float repetition_penalty = 1.0f;  // over prompt and generated tokens (CTRL, Keskar et al. 2019)
  float presence_penalty = 0.0f;    // over generated tokens, OpenAI's definition
  float frequency_penalty = 0.0f;
  std::uint64_t seed = 0;           // with `draw` it determines the draw on every run and batch composition
  std::uint64_t draw = 0;           // index of the generated token
  std::int32_t top_logprobs = -1;   // -1: none; 0: the chosen token's only; n: the n best too
  std::span<const TokenBias> bias;  // a token once at most
  std::span<const TokenCount> counts;      // needed if a penalty is on; a token once at most
  std::span<const std::uint32_t> allowed;  // bit per token, 1 = allowed; empty: all
  // The row's own token was generated and is not among `counts` yet, where it counts once more: of a row that
  // is fed (Batch::fed), whose token the host does not know.
  bool counts_own = false;
};

struct TokenLogprob {
  TokenId token;
  float logprob;
};

struct Sampled {
  TokenId token = -1;
  float logprob = 0.0f;           // of the raw distribution (log-softmax of the logits before the spec above)
  std::vector<TokenLogprob> top;  // best first, of the raw distribution
  bool invalid = false;           // the row's logits held NaN, or nothing was allowed: the request must end
};

}  // namespace mlxs
