// Inputs that a product normalizes itself, each block for itself, where that costs less than a kernel before
// it: bf16 rows in shared memory, in the order of an operand.
#pragma once

#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {

// Bytes of a row: rows start in different banks.
__host__ __device__ inline int normalized_stride(int stride) { return stride * 2 + 64; }

// Whole blocks. x.raw: f32 rows, a multiple of eight columns.
__device__ inline void normalize_here(const ThinInput& x, int rows, char* memory) {
  __shared__ float shares[32];
  const int warps = blockDim.x / 32, stride = normalized_stride(x.operand.stride);
  for (int row = 0; row < rows; ++row) {
    const auto* from = reinterpret_cast<const float4*>(x.raw + static_cast<size_t>(row) * x.columns);
    float squares = 0.0f;
    for (int i = static_cast<int>(threadIdx.x); i < x.columns / 4; i += static_cast<int>(blockDim.x)) {
      const float4 v = from[i];
      squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    squares = warp_sum(squares);
    __syncthreads();  // the row before's have been read
    if (threadIdx.x % 32 == 0) shares[threadIdx.x / 32] = squares;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < warps; ++i) sum += shares[i];
    const float factor = rsqrtf(sum / x.columns + x.norm.epsilon);
    for (int eight = static_cast<int>(threadIdx.x); eight < x.operand.stride / 8;
         eight += static_cast<int>(blockDim.x)) {
      float values[8] = {};
      if (eight < x.columns / 8) {
        const auto* gain = reinterpret_cast<const float4*>(x.norm.gain);
        const float4 v[2] = {from[2 * eight], from[2 * eight + 1]};
        const float4 by[2] = {gain[2 * eight], gain[2 * eight + 1]};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          values[4 * i] = v[i].x * factor * (by[i].x + x.norm.offset);
          values[4 * i + 1] = v[i].y * factor * (by[i].y + x.norm.offset);
          values[4 * i + 2] = v[i].z * factor * (by[i].z + x.norm.offset);
          values[4 * i + 3] = v[i].w * factor * (by[i].w + x.norm.offset);
        }
      }
      const uint4 pairs = pack_operand(values);
      *reinterpret_cast<uint4*>(memory + row * stride + eight * 16) = pairs;
      if (x.operand.data != nullptr && blockIdx.x == 0) {
        reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(x.operand.data) +
                                 static_cast<size_t>(row) * x.operand.stride)[eight] = pairs;
      }
    }
  }
  __syncthreads();
}

}  // namespace mlxs::cuda
