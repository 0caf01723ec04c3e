// What the memory delivers at most, the yardstick of the matrix-vector kernels; and whether any kernel of
// this build is for the GPU, which this one answers for all.
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 512, kAtOnce = 8;

__global__ __launch_bounds__(kThreads) void read_kernel(const uint4* memory, std::size_t count,
                                                        unsigned* sink) {
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * kThreads;
  unsigned any = 0;
  for (std::size_t at = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x; at < count;
       at += stride * kAtOnce) {
    uint4 words[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const std::size_t one = at + static_cast<std::size_t>(i) * stride;
      words[i] = __ldg(memory + (one < count ? one : at));
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) any |= words[i].x | words[i].y | words[i].z | words[i].w;
  }
  if (any != 0) *sink = any;
}

}  // namespace

void read_all(cudaStream_t stream, const void* memory, std::size_t bytes, int multiprocessors,
              unsigned* sink) {
  launch_after(read_kernel, dim3(4 * multiprocessors), kThreads, 0, stream, static_cast<const uint4*>(memory),
               bytes / 16, sink);
}

}  // namespace mlxs::cuda
