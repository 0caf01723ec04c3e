// Sums, shares before a thread's own, and minima of a whole block of kBlock threads; all of them call, and
// all get the result.
#pragma once

#include <cuda_runtime.h>

namespace mlxs::cuda {

constexpr int kBlock = 512, kBlockWarps = kBlock / 32;

template <int kNumbers>
__device__ void block_sum(double (&numbers)[kNumbers]) {
  __shared__ double shares[kBlockWarps][kNumbers];
#pragma unroll
  for (int i = 0; i < kNumbers; ++i) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) numbers[i] += __shfl_xor_sync(0xffffffffu, numbers[i], step);
    if (threadIdx.x % 32 == 0) shares[threadIdx.x / 32][i] = numbers[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kNumbers; ++i) {
    numbers[i] = 0.0;
#pragma unroll
    for (int w = 0; w < kBlockWarps; ++w) numbers[i] += shares[w][i];
  }
  __syncthreads();  // the next one writes there
}

// The sum of the threads before this one; all: of all.
template <class T>
__device__ T block_before(T own, T& all) {
  __shared__ T shares[kBlockWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  T sum = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const T lower = __shfl_up_sync(0xffffffffu, sum, step);
    if (lane >= step) sum += lower;
  }
  if (lane == 31) shares[warp] = sum;
  T before = __shfl_up_sync(0xffffffffu, sum, 1);
  if (lane == 0) before = T{};
  __syncthreads();
  all = T{};
  T lower{};
#pragma unroll
  for (int w = 0; w < kBlockWarps; ++w) {
    if (w == warp) lower = all;
    all += shares[w];
  }
  __syncthreads();
  return lower + before;
}

__device__ inline unsigned block_min(unsigned own) {
  __shared__ unsigned shares[kBlockWarps];
  own = __reduce_min_sync(0xffffffffu, own);
  if (threadIdx.x % 32 == 0) shares[threadIdx.x / 32] = own;
  __syncthreads();
  for (int w = 0; w < kBlockWarps; ++w) own = min(own, shares[w]);
  __syncthreads();
  return own;
}

}  // namespace mlxs::cuda
