// What the kernels that norm rows share: four columns at once, and a block's sum.
#pragma once

#include "backend/cuda/epilogue.cuh"

namespace mlxs::cuda {

__device__ inline float squares_of(const float4& v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }

__device__ inline float4 scaled(const float4& v, const float4& gain, float factor, float offset) {
  return {v.x * factor * (gain.x + offset), v.y * factor * (gain.y + offset),
          v.z * factor * (gain.z + offset), v.w * factor * (gain.w + offset)};
}

// Of whole blocks of kWarps warps; shares: of shared memory, which nobody reads any more.
template <int kWarps>
__device__ float sum_of_block(float value, float (&shares)[kWarps]) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) shares[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) sum += shares[i];
  return sum;
}

}  // namespace mlxs::cuda
