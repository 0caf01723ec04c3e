// Reading packed weights in a kernel: 16 columns of one row at a time, which share a scale.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backend/cuda/kernels.h"

namespace mlxs::cuda {

template <Codes kCodes>
struct Chunk;

// A code next to an exponent is a float: 128 + code costs one operation less than a conversion, and the 128
// goes into the bias.
template <>
struct Chunk<Codes::k4> {
  uint2 words;
  static constexpr float kOffset = 128.0f;
  __device__ void load(const void* codes, size_t row, int padded, int chunk) {
    words = __ldg(reinterpret_cast<const uint2*>(codes) + row * (padded >> 4) + chunk);
  }
  __device__ float code(int i) const {  // i: known at compile time after unrolling
    const unsigned word = i < 8 ? words.x : words.y;
    const int shift = 16 - 4 * (i & 7);
    const unsigned moved = shift >= 0 ? word << shift : word >> -shift;
    return __uint_as_float((moved & 0x000f0000u) | 0x43000000u);
  }
};

template <>
struct Chunk<Codes::k8> {
  uint4 words;
  static constexpr float kOffset = 32768.0f;
  __device__ void load(const void* codes, size_t row, int padded, int chunk) {
    words = __ldg(reinterpret_cast<const uint4*>(codes) + row * (padded >> 4) + chunk);
  }
  __device__ float code(int i) const {
    const unsigned word = i < 8 ? (i < 4 ? words.x : words.y) : (i < 12 ? words.z : words.w);
    // Bytes of 0x47000000 and the code: 32768 + code, the code in bits 8 … 15.
    return __uint_as_float(__byte_perm(word, 0x47000000u, 0x7604u | ((i & 3) << 4)));
  }
};

template <>
struct Chunk<Codes::kBF16> {
  uint4 words[2];
  static constexpr float kOffset = 0.0f;
  __device__ void load(const void* codes, size_t row, int padded, int chunk) {
    const uint4* at = reinterpret_cast<const uint4*>(codes) + (row * (padded >> 4) + chunk) * 2;
    words[0] = __ldg(at);
    words[1] = __ldg(at + 1);
  }
  __device__ float code(int i) const {
    const uint4& half = words[i >> 3];
    const int pair = (i & 7) >> 1;
    const unsigned word = pair < 2 ? (pair == 0 ? half.x : half.y) : (pair == 2 ? half.z : half.w);
    return __uint_as_float((i & 1) ? (word & 0xffff0000u) : (word << 16));
  }
};

// w = scale · code() + bias, the code's offset included; both 1 and 0 for dense rows.
template <Codes kCodes>
__device__ float2 scale_of(const Rows& w, size_t row, int chunk) {
  if constexpr (kCodes == Codes::kBF16) {
    return {1.0f, 0.0f};
  } else {
    const int groups = (w.padded + (1 << w.group_shift) - 1) >> w.group_shift;
    const __half2* scales = reinterpret_cast<const __half2*>(w.scales);
    float2 s = __half22float2(__ldg(scales + row * groups + (chunk >> (w.group_shift - 4))));
    s.y -= s.x * Chunk<kCodes>::kOffset;
    return s;
  }
}

}  // namespace mlxs::cuda
