// Norms behind a product (Gemma's behind a block) in its own kernel. The grid's last blocks have no outputs:
// they read what is there already, wait until the others have reported that they are done, and then norm a
// piece of a row each, add it to the stream, and make what the next product reads of it. They are so few that
// the others find room beside them (norms_behind()).
#pragma once

#include "backend/cuda/root_means.cuh"
#include "backend/cuda/thin_spec.cuh"

namespace mlxs::cuda {

constexpr int kNormedColumns = 1024;  // of a piece

__host__ __device__ inline int normed_pieces(const NormBehind& b) {  // of a row
  return (b.finish.columns + kNormedColumns - 1) / kNormedColumns;
}

// Whole blocks, as the last that they do for the product.
__device__ inline void report_done(int* counter) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(counter, 1);
}

// Whole blocks, behind those that have outputs.
__device__ inline void norm_behind(const Thin& a) {
  if (blockIdx.z + 1 < gridDim.z) return;  // that share columns: one of them is enough
  constexpr int kOnce = 8;                 // of a thread's columns
  __shared__ float shares[32];
  const NormBehind& b = a.behind;
  const int threads = blockDim.x, columns = b.finish.columns, pieces = normed_pieces(b);
  const int own = static_cast<int>(blockIdx.x) - a.own_blocks, row = own / pieces, piece = own % pieces;
  const int end = min(columns, (piece + 1) * kNormedColumns);
  int first = piece * kNormedColumns + static_cast<int>(threadIdx.x);
  float gains[kOnce];
  Ahead ahead[kOnce];
  const auto read = [&] {
#pragma unroll
    for (int n = 0; n < kOnce; ++n) {
      const int column = min(first + n * threads, columns - 1);
      gains[n] = __ldg(b.norm.gain + column) + b.norm.offset;
      ahead[n] = {gain_of(b.finish, column), residual_of(b.finish, row, column)};
    }
  };
  await();
  read();
  if (threadIdx.x == 0) {
    wait_until(b.counter, a.own_blocks);
    const int all = static_cast<int>(gridDim.x);  // each of which counts once
    if (atomicAdd(b.counter, 1) == all - 1) *b.counter = 0;
  }
  __syncthreads();
  __threadfence();
  const RootMeans means{a.f.squares.parts, a.f.squares.stride, a.tiles, columns, b.norm.epsilon};
  const float factor = factor_of(means, means.squares + static_cast<size_t>(row) * means.stride);
  float squares = 0.0f;
  while (first < end) {
    float values[kOnce];
#pragma unroll
    for (int n = 0; n < kOnce; ++n) {
      const int column = min(first + n * threads, columns - 1);
      values[n] = __ldcg(a.f.y + static_cast<size_t>(row) * columns + column);
    }
#pragma unroll
    for (int n = 0; n < kOnce; ++n) {
      if (first + n * threads >= end) continue;
      const float y = store(b.finish, row, first + n * threads, values[n] * factor * gains[n], ahead[n]);
      squares += y * y;
    }
    first += kOnce * threads;
    if (first < end) read();
  }
  if (b.finish.squares.parts == nullptr) return;
  squares = warp_sum(squares);
  if (threadIdx.x % 32 == 0) shares[threadIdx.x / 32] = squares;
  __syncthreads();
  if (threadIdx.x > 0) return;
  float sum = 0.0f;
  for (int i = 0; i < threads / 32; ++i) sum += shares[i];
  b.finish.squares.parts[static_cast<size_t>(row) * b.finish.squares.stride + piece] = sum;
}

}  // namespace mlxs::cuda
