// Sums whose columns several blocks share, together.
#pragma once

#include "backend/cuda/epilogue.cuh"

namespace mlxs::cuda {

// Whole blocks, one of each split (blockIdx.z) of a tile (blockIdx.x): shares, [warps][outputs][wide] of
// which `rows` count, to the memory of the splits; in the last block to come the sums of all are the first
// warp's then. False: it is not that one.
__device__ inline bool join_splits(const ThinSplits& splits, float* shares, int warps, int rows, int outputs,
                                   int wide) {
  const int threads = static_cast<int>(blockDim.x), first = static_cast<int>(threadIdx.x);
  float* const own = splits.partial + static_cast<size_t>(blockIdx.x) * gridDim.z * kSplitFloats;
  for (int at = first; at < rows * outputs; at += threads) {
    float sum = 0.0f;
    for (int i = 0; i < warps; ++i) sum += shares[(i * outputs + at % outputs) * wide + at / outputs];
    own[blockIdx.z * kSplitFloats + at] = sum;
  }
  if (!is_last_block(splits.counters + blockIdx.x, static_cast<int>(gridDim.z))) return false;
  for (int at = first; at < rows * outputs; at += threads) {
    float sum = 0.0f;
    for (unsigned i = 0; i < gridDim.z; ++i) sum += __ldcg(own + i * kSplitFloats + at);
    shares[at % outputs * wide + at / outputs] = sum;
  }
  __syncthreads();
  return true;
}

}  // namespace mlxs::cuda
