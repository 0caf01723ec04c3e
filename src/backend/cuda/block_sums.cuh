// Sums, shares before a thread's own, and minima of a whole block of kBlock threads, or of the blocks of a
// cluster; all of them call, and all get the result.
#pragma once

#include <cuda_runtime.h>

#include "backend/cuda/machine.cuh"

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

constexpr int kMostTeam = 8;

// Blocks that work together: a cluster's, along the grid's z, or one alone.
struct Team {
  int rank = 0, size = 1;
  __device__ static Team of_grid() {
    Team team;
    team.rank = static_cast<int>(blockIdx.z);
    team.size = static_cast<int>(gridDim.z);
    return team;
  }
  __device__ int thread() const { return rank * kBlock + static_cast<int>(threadIdx.x); }
  __device__ int threads() const { return size * kBlock; }

  template <int kNumbers>
  __device__ void sum(double (&numbers)[kNumbers]) {
    block_sum(numbers);
    if (size == 1) return;
    double all[kMostTeam][kNumbers];
    share(numbers, all);
#pragma unroll
    for (int n = 0; n < kNumbers; ++n) {
      numbers[n] = 0.0;
#pragma unroll
      for (int i = 0; i < kMostTeam; ++i) numbers[n] += i < size ? all[i][n] : 0.0;
    }
  }
  template <class T>
  __device__ T before(T own, T& all) {
    const T lower = block_before(own, all);
    if (size == 1) return lower;
    const T one[1] = {all};
    T given[kMostTeam][1], blocks{};
    share(one, given);
    all = T{};
#pragma unroll
    for (int i = 0; i < kMostTeam; ++i) {
      if (i == rank) blocks = all;
      all += i < size ? given[i][0] : T{};
    }
    return blocks + lower;
  }
  __device__ unsigned min(unsigned own) {
    own = block_min(own);
    if (size == 1) return own;
    const unsigned one[1] = {own};
    unsigned given[kMostTeam][1];
    share(one, given);
#pragma unroll
    for (int i = 0; i < kMostTeam; ++i) own = i < size ? ::min(own, given[i][0]) : own;
    return own;
  }
  // Before a block of several leaves: the others may still read what it shared.
  __device__ void leave() const {
#if defined(MLXS_HAS_CLUSTERS)
    if (size > 1) sync_cluster();
#endif
  }

 private:
  static constexpr int kMostNumbers = 8;

  // What each block has, the same for all its threads. Places take turns: who is two further has seen all
  // come to the one between, and so read this one.
  template <class T, int kNumbers>
  __device__ void share(const T (&own)[kNumbers], T (&all)[kMostTeam][kNumbers]) {
#if defined(MLXS_HAS_CLUSTERS)
    constexpr int kWords = kNumbers * sizeof(T) / sizeof(float);
    static_assert(kNumbers <= kMostNumbers);
    __shared__ double places[2][kMostNumbers];
    turn ^= 1;
    auto* const given = reinterpret_cast<T*>(places[turn]);
    if (threadIdx.x == 0) {
#pragma unroll
      for (int n = 0; n < kNumbers; ++n) given[n] = own[n];
    }
    sync_cluster();
    float words[kMostTeam][kWords];
#pragma unroll
    for (int i = 0; i < kMostTeam; ++i) {
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        words[i][w] = i < size ? read_cluster(reinterpret_cast<const float*>(given) + w, static_cast<unsigned>(i))
                               : 0.0f;
      }
      memcpy(&all[i], words[i], sizeof(words[i]));
    }
#endif
  }

  int turn = 0;
};

}  // namespace mlxs::cuda
