// Inputs that a product normalizes itself, each block for itself, where that costs less than a kernel before
// it: bf16 rows in shared memory, in the order of an operand.
#pragma once

#include "backend/cuda/norm.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {

// Bytes of a row: rows start in different banks.
__host__ __device__ inline int normalized_stride(int stride) { return stride * 2 + 64; }

// Eights of columns that a thread keeps in registers; of longer rows the rest is read again.
constexpr int kKeptEights = 2;

// The gains, which are there before the rows are.
struct KeptGains {
  float4 of[kKeptEights][2];
  __device__ void read(const ThinInput& x) {
#pragma unroll
    for (int n = 0; n < kKeptEights; ++n) {
      const int eight = static_cast<int>(threadIdx.x + n * blockDim.x);
      if (eight >= x.columns / 8) continue;
      const auto* gain = reinterpret_cast<const float4*>(x.norm.gain);
      of[n][0] = __ldg(gain + 2 * eight);
      of[n][1] = __ldg(gain + 2 * eight + 1);
    }
  }
};

// Whole blocks. x.raw: f32 rows, a multiple of eight columns.
__device__ inline void normalize_here(const ThinInput& x, const KeptGains& gains, int rows, char* memory) {
  __shared__ float shares[32];
  const int warps = blockDim.x / 32, stride = normalized_stride(x.operand.stride), eights = x.columns / 8;
  const auto eight_of = [](int n) { return static_cast<int>(threadIdx.x + n * blockDim.x); };
  for (int row = 0; row < rows; ++row) {
    const auto* from = reinterpret_cast<const float4*>(x.raw + static_cast<size_t>(row) * x.columns);
    float4 kept[kKeptEights][2] = {};
#pragma unroll
    for (int n = 0; n < kKeptEights; ++n) {
      if (eight_of(n) >= eights) continue;
      kept[n][0] = from[2 * eight_of(n)];
      kept[n][1] = from[2 * eight_of(n) + 1];
    }
    float squares = 0.0f;
#pragma unroll
    for (int n = 0; n < kKeptEights; ++n) squares += squares_of(kept[n][0]) + squares_of(kept[n][1]);
    for (int n = kKeptEights; eight_of(n) < eights; ++n)
      squares += squares_of(from[2 * eight_of(n)]) + squares_of(from[2 * eight_of(n) + 1]);
    squares = warp_sum(squares);
    __syncthreads();  // the row before's have been read
    if (threadIdx.x % 32 == 0) shares[threadIdx.x / 32] = squares;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < warps; ++i) sum += shares[i];
    const float factor = rsqrtf(sum / x.columns + x.norm.epsilon);
    const auto put = [&](int eight, const float4(&v)[2], const float4(&by)[2]) {
      float values[8];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        values[4 * i] = v[i].x * factor * (by[i].x + x.norm.offset);
        values[4 * i + 1] = v[i].y * factor * (by[i].y + x.norm.offset);
        values[4 * i + 2] = v[i].z * factor * (by[i].z + x.norm.offset);
        values[4 * i + 3] = v[i].w * factor * (by[i].w + x.norm.offset);
      }
      const uint4 pairs = eight < eights ? pack_operand(values) : uint4{};
      *reinterpret_cast<uint4*>(memory + row * stride + eight * 16) = pairs;
      if (x.operand.data != nullptr && blockIdx.x == 0) {
        reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(x.operand.data) +
                                 static_cast<size_t>(row) * x.operand.stride)[eight] = pairs;
      }
    };
#pragma unroll
    for (int n = 0; n < kKeptEights; ++n) {
      if (eight_of(n) < x.operand.stride / 8) put(eight_of(n), kept[n], gains.of[n]);
    }
    for (int n = kKeptEights; eight_of(n) < x.operand.stride / 8; ++n) {
      const int eight = eight_of(n), at = min(eight, eights - 1);
      const auto* gain = reinterpret_cast<const float4*>(x.norm.gain);
      const float4 v[2] = {from[2 * at], from[2 * at + 1]}, by[2] = {gain[2 * at], gain[2 * at + 1]};
      put(eight, v, by);
    }
  }
  __syncthreads();
}

}  // namespace mlxs::cuda
