// Eight columns of a packed row as four pairs of bf16, in the order of an operand: (0,4) (1,5) (2,6) (3,7).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backend/cuda/kernels.h"

namespace mlxs::cuda {

// How a weight's scale meets its codes.
enum class Scaling {
  kNone,    // bf16 weights
  kUnits,   // groups of 64 and more: products of bare codes are scaled, once in 64 columns
  kHalves,  // groups of 32: the same, twice in 64 columns
  kCodes,   // groups of 16: weights are scaled first, and rounded to bf16
};

template <Codes kCodes>
struct Eight;

template <>
struct Eight<Codes::k4> {
  unsigned word;
  static constexpr float kOffset = 128.0f;  // pairs() are 128 + code: a nibble beside an exponent
  // From a row in any memory; column: a multiple of eight.
  __device__ void read(const char* row, int column) {
    word = *reinterpret_cast<const unsigned*>(row + column / 2);
  }
  __device__ void pairs(unsigned (&p)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i)  // (word & mask) | exponents, which the compiler would make two operations of
      asm("lop3.b32 %0, %1, 0x000f000f, %2, 0xea;" : "=r"(p[i]) : "r"(word >> (4 * i)), "r"(0x43004300u));
  }
  __device__ float code(int i) const { return static_cast<float>((word >> (4 * i)) & 15u); }
};

template <>
struct Eight<Codes::k8> {
  uint2 words;
  static constexpr float kOffset = 0.0f;
  __device__ void read(const char* row, int column) { words = *reinterpret_cast<const uint2*>(row + column); }
  __device__ float code(int i) const {  // 2^23 + code, less 2^23
    return __uint_as_float(__byte_perm(i < 4 ? words.x : words.y, 0x4b000000u, 0x7440u | (i & 3))) -
           8388608.0f;
  }
  __device__ void pairs(unsigned (&p)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 two = __floats2bfloat162_rn(code(i), code(i + 4));
      p[i] = *reinterpret_cast<const unsigned*>(&two);
    }
  }
};

template <>
struct Eight<Codes::kBF16> {
  uint4 words;
  static constexpr float kOffset = 0.0f;
  __device__ void read(const char* row, int column) {
    words = *reinterpret_cast<const uint4*>(row + column * 2);
  }
  __device__ void pairs(unsigned (&p)[4]) const {
    p[0] = __byte_perm(words.x, words.z, 0x5410);
    p[1] = __byte_perm(words.x, words.z, 0x7632);
    p[2] = __byte_perm(words.y, words.w, 0x5410);
    p[3] = __byte_perm(words.y, words.w, 0x7632);
  }
};

// The same with scale and bias applied, rounded to bf16.
template <Codes kCodes>
__device__ inline void scaled_pairs(const Eight<kCodes>& eight, float2 scale, unsigned (&p)[4]) {
  if constexpr (kCodes == Codes::kBF16) {
    eight.pairs(p);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 two = __floats2bfloat162_rn(fmaf(eight.code(i), scale.x, scale.y),
                                                       fmaf(eight.code(i + 4), scale.x, scale.y));
      p[i] = *reinterpret_cast<const unsigned*>(&two);
    }
  }
}

__host__ __device__ inline size_t code_row_bytes(Codes type, int padded) {
  return type == Codes::k4 ? padded / 2 : type == Codes::k8 ? padded : static_cast<size_t>(padded) * 2;
}
__host__ __device__ inline int groups_of(int padded, int shift) {
  return (padded + (1 << shift) - 1) >> shift;
}

}  // namespace mlxs::cuda
