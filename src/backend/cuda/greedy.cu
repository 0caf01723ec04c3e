// The most common way to sample, without the logits leaving the GPU: the highest logit of a row and its log
// probability. NaN anywhere in a row makes its result invalid.
#include "backend/cuda/epilogue.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 1024;

struct Best {
  float value;
  int index;
};

__device__ Best better(Best a, Best b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

__global__ __launch_bounds__(kThreads) void greedy_kernel(const float* __restrict__ logits, int columns,
                                                          Greedy* out) {
  const float* row = logits + static_cast<size_t>(blockIdx.x) * columns;
  Best best{-INFINITY, columns};
  bool broken = false;
  for (int i = threadIdx.x; i < columns; i += kThreads) {
    broken = broken || isnan(row[i]);
    best = better(best, {row[i], i});
  }
  __shared__ Best bests[kThreads / 32];
  __shared__ float sums[kThreads / 32];
  const auto reduce = [](Best b) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
      b = better(b,
                 {__shfl_xor_sync(0xffffffffu, b.value, step), __shfl_xor_sync(0xffffffffu, b.index, step)});
    return b;
  };
  best = reduce(best);
  if (threadIdx.x % 32 == 0) bests[threadIdx.x / 32] = best;
  const bool any_broken = __syncthreads_or(broken);
  best = reduce(bests[threadIdx.x % 32]);
  float sum = 0.0f;
  for (int i = threadIdx.x; i < columns; i += kThreads) sum += __expf(row[i] - best.value);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = warp_sum(sums[threadIdx.x % 32]);
  if (threadIdx.x != 0) return;
  // All -infinity, or a +infinity: the host's sampler decides.
  out[blockIdx.x] = {any_broken || isinf(best.value) ? -1 : best.index, -logf(sum)};
}

}  // namespace

void greedy(cudaStream_t stream, const float* logits, int rows, int columns, Greedy* out) {
  greedy_kernel<<<rows, kThreads, 0, stream>>>(logits, columns, out);
}

}  // namespace mlxs::cuda
