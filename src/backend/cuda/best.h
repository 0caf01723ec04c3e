// The best logits of rows with their log probabilities, found on the GPU. As kernels.h; included by nvcc and
// by the host compiler.
#pragma once

#include "backend/cuda/sampling.h"

namespace mlxs::cuda {

inline constexpr int kMostBest = 20;  // of a row
struct Best {
  int token;  // -1: the row has no more
  float logprob;
};
// Of each row, best first, ties to the lower token; to one of two places in pinned memory, [rows][kMostBest].
// Behind greedy() of the same logits, before draw(). scratch: best_bytes().
std::size_t best_bytes(int rows);
void best(cudaStream_t stream, const float* logits, int rows, int columns, void* scratch, const Pick* picks,
          const int* turn, Best* const (&host)[2]);

}  // namespace mlxs::cuda
