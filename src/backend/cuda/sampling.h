// The kernels that draw a step's tokens, as plain functions; like kernels.h, for nvcc and the host compiler.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace mlxs::cuda {

struct Pick {
  int token;      // -1: the row holds NaN, or nothing above -infinity
  float logprob;  // of that token
};
// Where a step's picks go: to the GPU, for the step behind it, and to one of two places in pinned memory, for
// the host. turn: on the GPU, which of the two.
struct Picks {
  Pick* device = nullptr;
  Pick* host[2] = {};
  const int* turn = nullptr;
};
// The highest logit of each row, ties to the lowest index. parts: rows · kGreedyParts · 16 bytes.
inline constexpr int kGreedyParts = 32;
void greedy(cudaStream_t stream, const float* logits, int rows, int columns, void* parts, const Picks& to);
// One row's draw, as SampleRow; uniform: its random number.
struct Draw {
  int top_k = 0;     // 0: off
  float factor = 0;  // log2 e / temperature; 0: greedy() has drawn the row
  float top_p = 1;   // 1: off
  float least = 0;   // log2 of min_p; the lowest float: off
  double uniform = 0;
};
// Behind greedy() of the same logits, of which it replaces the picks of the rows that are drawn. teams:
// blocks may share a row in a cluster. scratch: draw_bytes().
std::size_t draw_bytes(int rows, int columns);
void draw(cudaStream_t stream, const float* logits, int columns, const Draw* draws, int rows, bool teams,
          void* scratch, const Picks& to);
// tokens[i] becomes picks[fed[i]].token where fed[i] ≥ 0; any token if that pick is none.
void feed(cudaStream_t stream, const int* fed, int rows, const Pick* picks, int* tokens);

}  // namespace mlxs::cuda
