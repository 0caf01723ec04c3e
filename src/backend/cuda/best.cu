// The best logits of a row and their log probabilities: blocks have a share of it each and take their best
// one after the other, then a warp merges what they took.
#include "backend/cuda/best.h"

#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 256, kShares = 32;

struct Found {
  float value;
  int index;
};

__device__ Found better(const Found& a, const Found& b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}
__device__ Found best_of_warp(Found own) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    own = better(own, {__shfl_xor_sync(0xffffffffu, own.value, step),
                       __shfl_xor_sync(0xffffffffu, own.index, step)});
  }
  return own;
}

// A thread has each kThreads-th column of the block's share, which are consecutive ones.
__global__ __launch_bounds__(kThreads) void take_kernel(const float* logits, int columns,
                                                        Found* found) {
  await();
  __shared__ Found bests[2][kThreads / 32];
  const int share = (columns + kShares - 1) / kShares, begin = static_cast<int>(blockIdx.x) * share,
            end = min(begin + share, columns);
  const float* row = logits + static_cast<size_t>(blockIdx.y) * columns;
  Found* const to = found + (static_cast<size_t>(blockIdx.y) * kShares + blockIdx.x) * kMostBest;
  Found last{INFINITY, -1}, own{};  // taken last
  // What is behind the last that was taken, in the order of better().
  const auto search = [&] {
    own = {-INFINITY, columns};
#pragma unroll 4
    for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) {
      const float value = row[i];
      const bool left = value < last.value || (value == last.value && i > last.index);
      if (left && value > -INFINITY) own = better(own, {value, i});
    }
  };
  search();
  for (int n = 0; n < kMostBest; ++n) {
    const Found of_warp = best_of_warp(own);
    if (threadIdx.x % 32 == 0) bests[n % 2][threadIdx.x / 32] = of_warp;
    __syncthreads();
    last = bests[n % 2][0];
#pragma unroll
    for (int w = 1; w < kThreads / 32; ++w) last = better(last, bests[n % 2][w]);
    if (threadIdx.x == 0) to[n] = last;
    if (last.index == own.index && last.index < columns) search();
  }
}

// A warp a row, whose lanes have a share's each, best first.
__global__ __launch_bounds__(kShares) void merge_kernel(const float* logits, int columns,
                                                        const Found* found, const Pick* picks, const int* turn,
                                                        Best* first, Best* second) {
  await();
  const auto row = static_cast<size_t>(blockIdx.x);
  const Pick pick = picks[row];
  if (pick.token < 0) return;
  const float highest = logits[row * columns + pick.token];
  const Found* own = found + (row * kShares + threadIdx.x) * kMostBest;
  Best* const to = (*turn == 0 ? first : second) + row * kMostBest;
  int next = 0;
  for (int n = 0; n < kMostBest; ++n) {
    const Found mine = next < kMostBest ? own[next] : Found{-INFINITY, columns};
    const Found chosen = best_of_warp(mine);
    if (chosen.index == mine.index) ++next;
    // Of a row with infinite logits those alone have probability.
    const bool is = chosen.index < columns && (highest < INFINITY || chosen.value == INFINITY);
    if (threadIdx.x == 0) {
      to[n] = {is ? chosen.index : -1,
               pick.logprob + (highest < INFINITY ? chosen.value - highest : 0.0f)};
    }
  }
}

}  // namespace

std::size_t best_bytes(int rows) { return static_cast<std::size_t>(rows) * kShares * kMostBest * sizeof(Found); }

void best(cudaStream_t stream, const float* logits, int rows, int columns, void* scratch, const Pick* picks,
          const int* turn, Best* const (&host)[2]) {
  auto* found = static_cast<Found*>(scratch);
  launch_early(take_kernel, dim3(kShares, rows), kThreads, 0, stream, logits, columns, found);
  launch_early(merge_kernel, dim3(rows), kShares, 0, stream, logits, columns, found, picks, turn, host[0],
               host[1]);
}

}  // namespace mlxs::cuda
