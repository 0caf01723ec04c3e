// The most common way to sample, without the logits leaving the GPU: the highest logit of a row and its log
// probability; and how it gets to the next step's rows. Several blocks share a row. NaN anywhere in it makes
// its result invalid.
#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/sampling.h"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 256;

// A share of a row: its highest value and where, Σ exp(value - highest).
struct Share {
  float highest;
  int index;
  float sum;
  int broken;
};

__device__ Share join(const Share& a, const Share& b) {
  const bool second = b.highest > a.highest || (b.highest == a.highest && b.index < a.index);
  const float highest = second ? b.highest : a.highest;
  // An empty share's highest is -infinity, as that of a row which is all so.
  const auto part = [&](const Share& s) {
    return s.highest == highest ? s.sum : s.sum * __expf(s.highest - highest);
  };
  return {highest, second ? b.index : a.index, part(a) + part(b), a.broken | b.broken};
}

__device__ Share join_warp(Share s) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    s = join(s, {__shfl_xor_sync(0xffffffffu, s.highest, step), __shfl_xor_sync(0xffffffffu, s.index, step),
                 __shfl_xor_sync(0xffffffffu, s.sum, step), __shfl_xor_sync(0xffffffffu, s.broken, step)});
  }
  return s;
}

__global__ __launch_bounds__(kThreads) void share_kernel(const float* logits, int columns,
                                                         Share* parts) {
  await();
  const float* row = logits + static_cast<size_t>(blockIdx.y) * columns;
  Share best{-INFINITY, columns, 0.0f, 0};
  for (int i = static_cast<int>(blockIdx.x) * kThreads + threadIdx.x; i < columns;
       i += kGreedyParts * kThreads) {
    const float value = row[i];
    best.broken |= isnan(value);
    if (value == INFINITY) {  // beats everything: such tokens share the probability
      best = best.highest == INFINITY ? Share{INFINITY, best.index, best.sum + 1.0f, best.broken}
                                      : Share{INFINITY, i, 1.0f, best.broken};
    } else if (value > best.highest) {
      best.sum = (best.highest == -INFINITY ? 0.0f : best.sum * __expf(best.highest - value)) + 1.0f;
      best.highest = value;
      best.index = i;
    } else if (value > -INFINITY) {
      best.sum += __expf(value - best.highest);
    }
  }
  __shared__ Share shares[kThreads / 32];
  best = join_warp(best);
  if (threadIdx.x % 32 == 0) shares[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kThreads / 32; ++i) best = join(best, shares[i]);
  parts[blockIdx.y * kGreedyParts + blockIdx.x] = best;
}

__global__ void join_kernel(const Share* parts, const __grid_constant__ Picks to) {
  await();
  static_assert(kGreedyParts == 32);
  const Share best = join_warp(parts[blockIdx.x * kGreedyParts + threadIdx.x]);
  if (threadIdx.x != 0) return;
  const Pick pick{best.broken || best.highest == -INFINITY ? -1 : best.index, -logf(best.sum)};
  to.device[blockIdx.x] = pick;
  to.host[*to.turn][blockIdx.x] = pick;
}

__global__ void feed_kernel(const int* fed, int rows, const Pick* picks, int* tokens) {
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row < rows && fed[row] >= 0) tokens[row] = max(picks[fed[row]].token, 0);
}

}  // namespace

void greedy(cudaStream_t stream, const float* logits, int rows, int columns, void* parts, const Picks& to) {
  static_assert(sizeof(Share) == 16);
  auto* shares = static_cast<Share*>(parts);
  launch_early(share_kernel, dim3(kGreedyParts, rows), kThreads, 0, stream, logits, columns, shares);
  launch_early(join_kernel, dim3(rows), kGreedyParts, 0, stream, shares, to);
}

void feed(cudaStream_t stream, const int* fed, int rows, const Pick* picks, int* tokens) {
  launch_after(feed_kernel, dim3((rows + kThreads - 1) / kThreads), kThreads, 0, stream, fed, rows, picks,
               tokens);
}

}  // namespace mlxs::cuda
