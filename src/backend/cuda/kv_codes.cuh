// Keys and values as they lie in pages: bf16, or codes of 8 bits with one scale for each token of a head,
// x = scale · code, the largest |x| being 127. A head that holds a NaN or an infinity gets a scale that is
// NaN.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "backend/cuda/kernels.h"
#include "backend/cuda/machine.cuh"

namespace mlxs::cuda {

template <bool kInt8>
using KvElement = std::conditional_t<kInt8, signed char, __nv_bfloat16>;

__device__ inline unsigned magnitude(float value) { return __float_as_uint(value) & 0x7fffffffu; }
// largest: magnitude() of the largest value; its bits order as the values do, NaN on top.
__device__ inline float scale_of(unsigned largest) {
  return __uint_as_float(largest < 0x7f800000u ? largest : 0x7fc00000u) / 127.0f;
}
// A warp's, of each lane's largest.
__device__ inline float kv_scale(unsigned largest) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2)
    largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  return scale_of(largest);
}
__device__ inline float inverse_scale(float scale) { return scale > 0.0f ? 1.0f / scale : 0.0f; }
// inverse: of the scale; unused for bf16.
template <bool kInt8>
__device__ inline KvElement<kInt8> kv_element(float value, float inverse) {
  if constexpr (kInt8) {
    // 1.5 · 2^23: the low bits of the sum are the rounded number.
    return static_cast<signed char>(__float_as_uint(value * inverse + 12582912.0f) & 0xffu);
  } else {
    return __float2bfloat16(value);
  }
}

// Four codes as floats.
__device__ inline void open_codes(unsigned codes, float* to) {
  const unsigned above = codes ^ 0x80808080u;  // 0 … 255
#pragma unroll
  for (int i = 0; i < 4; ++i)
    to[i] = __uint_as_float(__byte_perm(above, 0x4b000000u, 0x7650u + static_cast<unsigned>(i))) - 8388736.0f;
}
// Eight codes as bf16, which holds them all: 128 + the low seven bits, less 128 or, below zero, 256.
__device__ inline uint4 open_codes(const uint2& codes) {
  const __nv_bfloat162 one = __floats2bfloat162_rn(1.0f, 1.0f);
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const unsigned two = __byte_perm(i < 2 ? codes.x : codes.y, 0u, i % 2 == 0 ? 0x4140 : 0x4342);
    const unsigned above = (two & 0x007f007fu) | 0x43004300u, less = (two & 0x00800080u) | 0xc300c300u;
    const __nv_bfloat162 opened = fused(*reinterpret_cast<const __nv_bfloat162*>(&above), one,
                                        *reinterpret_cast<const __nv_bfloat162*>(&less));
    words[i] = *reinterpret_cast<const unsigned*>(&opened);
  }
  return {words[0], words[1], words[2], words[3]};
}

// A warp: a token's key or value of one head to its slot. scales: nullptr for bf16.
__device__ inline void store_head(const float* from, int dims, void* pages, float* scales, size_t slot) {
  const int lane = threadIdx.x % 32;
  if (scales == nullptr) {
    auto* to = static_cast<__nv_bfloat16*>(pages) + slot * dims;
    for (int i = lane; i < dims; i += 32) to[i] = __float2bfloat16(from[i]);
    return;
  }
  unsigned largest = 0;
  for (int i = lane; i < dims; i += 32) largest = max(largest, magnitude(from[i]));
  const float scale = kv_scale(largest), inverse = inverse_scale(scale);
  if (lane == 0) scales[slot] = scale;
  auto* to = static_cast<signed char*>(pages) + slot * dims;
  for (int i = lane; i < dims; i += 32) to[i] = kv_element<true>(from[i], inverse);
}

}  // namespace mlxs::cuda
