// Activations as the tensor cores take them (kernels.h, Operand), in kernels.
#pragma once

#include <cuda_bf16.h>

#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/machine.cuh"

namespace mlxs::cuda {

// Eight consecutive columns, of which the first is a multiple of eight.
__device__ inline uint4 pack_operand(const float (&v)[8]) {
  const auto pair = [](float a, float b) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<const unsigned*>(&two);
  };
  return {pair(v[0], v[4]), pair(v[1], v[5]), pair(v[2], v[6]), pair(v[3], v[7])};
}

// The same as a wide operand's, of four lanes side by side, together: lane l has the eight columns from 8 · l
// on of a row's 32, and gets the sixteen bytes that stand where those would, one after the other.
__device__ inline uint4 widely(const uint4& pairs) {
  const unsigned all = 0xffffffffu;
  const bool odd = threadIdx.x % 2 == 1, late = threadIdx.x / 2 % 2 == 1;
  const unsigned a = __shfl_xor_sync(all, odd ? pairs.x : pairs.y, 1),
                 b = __shfl_xor_sync(all, odd ? pairs.z : pairs.w, 1);
  const uint4 two = odd ? uint4{a, pairs.y, b, pairs.w} : uint4{pairs.x, a, pairs.z, b};
  const unsigned c = __shfl_xor_sync(all, late ? two.x : two.z, 2),
                 d = __shfl_xor_sync(all, late ? two.y : two.w, 2);
  return late ? uint4{c, d, two.z, two.w} : uint4{two.x, two.y, c, d};
}

__device__ inline void read_eight(const float* from, float (&v)[8]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float4 four = reinterpret_cast<const float4*>(from)[i];
    v[4 * i] = four.x;
    v[4 * i + 1] = four.y;
    v[4 * i + 2] = four.z;
    v[4 * i + 3] = four.w;
  }
}
// Eight bf16 as floats.
__device__ inline void open_pairs(const uint4& pairs, float (&v)[8]) {
  const unsigned words[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = __uint_as_float(words[i] << 16);
    v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

// To their place.
__device__ inline void put_eight(const Operand& y, int row, int eight, const float (&values)[8]) {
  auto* to = static_cast<__nv_bfloat16*>(y.data) + static_cast<size_t>(row) * y.stride;
  const uint4 pairs = pack_operand(values);
  if (!y.wide) {
    reinterpret_cast<uint4*>(to)[eight] = pairs;
    return;
  }
  const unsigned each[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) *reinterpret_cast<unsigned*>(to + operand_place(eight * 8 + i, true)) = each[i];
}

}  // namespace mlxs::cuda
