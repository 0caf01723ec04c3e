// Logits as their rows want them changed before a token is drawn, on the GPU: mask, bias, penalties. As
// kernels.h; included by nvcc and by the host compiler.
#pragma once

#include "backend/cuda/sampling.h"

namespace mlxs::cuda {

struct AdjustItem {
  int token;
  int value;  // of a bias the bits of its float, of a count how often the token was generated
};
// What is done to a row, as SampleRow; all zero: nothing.
struct Adjustment {
  int first = 0;                                      // item of the step's: biases, then counts
  int biases = 0, counts = 0;                         // no token twice among either
  int own = 0;                                        // 1: the row's own token counts once more
  int mask = 0;                                       // which of the step's masks, from 1; 0: none
  float repetition = 0, presence = 0, frequency = 0;  // set if there are counts, or `own`
};
static_assert(sizeof(Adjustment) % 8 == 0);
// All on the GPU.
struct Adjustments {
  const Adjustment* rows = nullptr;
  const AdjustItem* items = nullptr;
  const int *tokens = nullptr, *sampled = nullptr;  // row i's own token is tokens[sampled[i]]
  const unsigned* masks = nullptr;  // each of mask_words(columns); may be null if no row has one
};
constexpr int mask_words(int columns) { return (columns + 31) / 32; }
// Adjusts `rows` rows of logits in place or, the others' too, into `to`. NaN stays NaN, also where the mask
// forbids it. The numbers are those of cpu/sample.cpp, to the last bit.
void adjust(cudaStream_t stream, const float* logits, int rows, int columns, const Adjustments& by,
            float* to);
// Of tokens picked from adjusted logits: their log probabilities are those of `logits`, unadjusted, of which
// greedy() made `best`.
void tell_logprobs(cudaStream_t stream, const float* logits, int rows, int columns, const Pick* best,
                   const Picks& to);

}  // namespace mlxs::cuda
