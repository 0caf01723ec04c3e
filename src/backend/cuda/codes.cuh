// Packed weights in kernels (kernels.h, Rows): a unit of sixteen rows as a warp's lanes hold it, or eight
// columns of one row. Eight columns become four pairs of bf16 in the order of an operand: (0,4) (1,5) (2,6)
// (3,7).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backend/cuda/kernels.h"
#include "backend/cuda/machine.cuh"

namespace mlxs::cuda {

// How a weight's scale meets its codes.
enum class Scaling {
  kNone,    // bf16 weights
  kUnits,   // groups of 64: products of bare codes are scaled, once in 64 columns
  kFloats,  // the same, with scales in f32 and no biases
  kHalves,  // groups of 32: the same, twice in 64 columns
  kCodes,   // groups of 16: weights are scaled first, and rounded to bf16
};

constexpr bool one_a_unit(Scaling scaling) {
  return scaling == Scaling::kUnits || scaling == Scaling::kFloats;
}

template <Codes kCodes>
struct Eight;

template <>
struct Eight<Codes::k4> {
  unsigned word;
  static constexpr float kOffset = 128.0f;  // pairs() are 128 + code: a nibble beside an exponent
  __device__ void read(const char* at) { word = *reinterpret_cast<const unsigned*>(at); }
  __device__ void pairs(unsigned (&p)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) p[i] = nibbles_beside_exponents(word >> (4 * i));
  }
  __device__ float code(int i) const { return static_cast<float>((word >> (4 * i)) & 15u); }
};

template <>
struct Eight<Codes::k8> {
  uint2 words;
  static constexpr float kOffset = 0.0f;
  __device__ void read(const char* at) { words = *reinterpret_cast<const uint2*>(at); }
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
struct Eight<Codes::kF8> {
  uint2 words;
  static constexpr float kOffset = 0.0f;
  __device__ void read(const char* at) { words = *reinterpret_cast<const uint2*>(at); }
  // As bf16 with the exponent's bias of e4m3, which lacks a factor of 2^120: exact, whatever the number.
  __device__ void pairs(unsigned (&p)[4]) const {
    const __nv_bfloat162 factor = __float2bfloat162_rn(0x1p120f), none = __float2bfloat162_rn(-0.0f);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const unsigned both = __byte_perm(words.x, words.y, 0x4000u + 0x1111u * i);
      p[i] = (both & 0x80008000u) | (both >> 4 & 0x07f007f0u);
      auto& two = reinterpret_cast<__nv_bfloat162&>(p[i]);
      two = fused(two, factor, none);
    }
  }
  __device__ float code(int i) const {
    unsigned p[4];
    pairs(p);
    return __uint_as_float(i < 4 ? p[i] << 16 : p[i & 3] & 0xffff0000u);
  }
};

template <>
struct Eight<Codes::kBF16> {
  uint4 words;  // pairs as they are wanted
  static constexpr float kOffset = 0.0f;
  __device__ void read(const char* at) {
    const auto pair = [&](int offset) { return *reinterpret_cast<const unsigned*>(at + offset); };
    words = {pair(0), pair(8), pair(512), pair(520)};
  }
  __device__ void pairs(unsigned (&p)[4]) const {
    p[0] = words.x;
    p[1] = words.y;
    p[2] = words.z;
    p[3] = words.w;
  }
  __device__ float code(int i) const {
    const unsigned low = i & 1 ? words.y : words.x, high = i & 1 ? words.w : words.z;
    const unsigned pair = i & 2 ? high : low;
    return __uint_as_float(i < 4 ? pair << 16 : pair & 0xffff0000u);
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

template <Codes kCodes>
constexpr int kUnitBytes = kCodes == Codes::k4      ? 512
                           : kCodes == Codes::kBF16 ? 2048
                                                    : 1024;

// A lane's part of a unit: rows lane / 4 (h = 0) and eight below (h = 1), the columns 8 · (lane % 4) and
// following (piece 0), and 32 behind them (piece 1).
template <Codes kCodes>
struct UnitCodes {
  uint4 words[kUnitBytes<kCodes> / 512];
  __device__ void load(const char* lane_at) {  // of the unit, the lane's first sixteen bytes
#pragma unroll
    for (int i = 0; i < kUnitBytes<kCodes> / 512; ++i) words[i] = stream_weights16(lane_at + i * 512);
  }
  // By way of shared memory, where every lane has what it copied itself.
  static __device__ void copy(char* to, const char* lane_at) {
#pragma unroll
    for (int i = 0; i < kUnitBytes<kCodes> / 512; ++i) copy16(to + i * 512, lane_at + i * 512);
  }
  __device__ void take(const char* from) {
#pragma unroll
    for (int i = 0; i < kUnitBytes<kCodes> / 512; ++i)
      words[i] = *reinterpret_cast<const uint4*>(from + i * 512);
  }
  __device__ Eight<kCodes> eight(int h, int piece) const {  // known at compile time after unrolling
    Eight<kCodes> e;
    if constexpr (kCodes == Codes::k4) {
      e.word = h == 0 ? (piece == 0 ? words[0].x : words[0].y) : (piece == 0 ? words[0].z : words[0].w);
    } else if constexpr (kCodes != Codes::kBF16) {
      e.words = piece == 0 ? make_uint2(words[h].x, words[h].y) : make_uint2(words[h].z, words[h].w);
    } else {
      const uint4 &early = words[2 * piece], &late = words[2 * piece + 1];
      e.words = h == 0 ? make_uint4(early.x, early.z, late.x, late.z)
                       : make_uint4(early.y, early.w, late.y, late.w);
    }
    return e;
  }
};

// The scales of those: of a row, or of each piece of it.
template <Scaling kScaling>
struct UnitScales {
  static constexpr bool kOne = one_a_unit(kScaling);
  static constexpr int kBytes = kScaling == Scaling::kNone     ? 0
                                : kOne                         ? 64
                                : kScaling == Scaling::kHalves ? 128
                                                               : 256;  // of a unit
  static constexpr int kOwn = kScaling == Scaling::kNone ? 1 : kOne ? 2 : 4;
  unsigned words[kOwn];
  static __device__ int lane_offset(int lane) {
    return kOne                           ? lane / 4 * 8
           : kScaling == Scaling::kHalves ? lane / 4 * 16
           : kScaling == Scaling::kCodes  ? lane / 2 * 16
                                          : 0;
  }
  static constexpr int kLaneBytes = kScaling == Scaling::kNone ? 0 : kOwn * 4;
  static __device__ void copy(char* to, const char* lane_at) {
    if constexpr (kOne) {
      copy8(to, lane_at);
    } else if constexpr (kScaling != Scaling::kNone) {
      copy16(to, lane_at);
    }
  }
  __device__ void take(const char* from) {
    if constexpr (kOne) {
      const uint2 two = *reinterpret_cast<const uint2*>(from);
      words[0] = two.x;
      words[1] = two.y;
    } else if constexpr (kScaling != Scaling::kNone) {
      const uint4 four = *reinterpret_cast<const uint4*>(from);
      words[0] = four.x;
      words[1] = four.y;
      words[2] = four.z;
      words[3] = four.w;
    }
  }
  __device__ void load(const char* lane_at) {
    if constexpr (kOne) {
      const uint2 two = __ldg(reinterpret_cast<const uint2*>(lane_at));
      words[0] = two.x;
      words[1] = two.y;
    } else if constexpr (kScaling != Scaling::kNone) {
      const uint4 four = __ldg(reinterpret_cast<const uint4*>(lane_at));
      words[0] = four.x;
      words[1] = four.y;
      words[2] = four.z;
      words[3] = four.w;
    }
  }
  // {scale, bias}
  __device__ float2 of(int h, int piece) const {
    const unsigned word = words[kOne ? h : 2 * piece + h];
    if constexpr (kScaling == Scaling::kFloats) return {__uint_as_float(word), 0.0f};
    return __half22float2(*reinterpret_cast<const __half2*>(&word));
  }
};

// A lane's part of a unit as the left operands of four steps.
template <Codes kCodes, Scaling kScaling>
__device__ inline void unpack(const UnitCodes<kCodes>& codes, const UnitScales<kScaling>& scales,
                              unsigned (&a)[4][4]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int piece = 0; piece < 2; ++piece) {
      unsigned p[4];
      if constexpr (kCodes == Codes::k4) {
        codes.eight(h, piece).pairs(p);
        const float2 scale = scales.of(h, piece);
        const __nv_bfloat162 factor = __float2bfloat162_rn(scale.x), bias = __float2bfloat162_rn(scale.y);
        const __nv_bfloat162 offset = __float2bfloat162_rn(Eight<kCodes>::kOffset);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          auto& two = reinterpret_cast<__nv_bfloat162&>(p[i]);
          two = fused(__hsub2(two, offset), factor, bias);
        }
      } else if constexpr (kCodes != Codes::kBF16) {
        scaled_pairs(codes.eight(h, piece), scales.of(h, piece), p);
      } else {
        codes.eight(h, piece).pairs(p);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) a[2 * piece + i / 2][h + i % 2 * 2] = p[i];
    }
  }
}

__host__ __device__ inline int groups_of_unit(int group_shift) { return 64 >> group_shift; }

// Where eight columns of a row stand; eight: the column / 8.
template <Codes kCodes>
__device__ inline const char* eight_at(const Rows& w, int row, int eight) {
  const size_t unit = static_cast<size_t>(row >> 4) * (w.padded / 64) + eight / 8;
  const int lane = (row & 7) * 4 + (eight & 3), h = row >> 3 & 1, piece = eight >> 2 & 1;
  const int within = kCodes == Codes::k4      ? lane * 16 + h * 8 + piece * 4
                     : kCodes == Codes::kBF16 ? piece * 1024 + lane * 16 + h * 4
                                              : h * 512 + lane * 16 + piece * 8;
  return static_cast<const char*>(w.codes) + unit * kUnitBytes<kCodes> + within;
}

// Where a group of a unit (its q-th) has its scale, in half2, among the unit's.
__host__ __device__ inline int scale_place(int group_shift, int row, int q) {
  const int g = row & 7, h = row >> 3 & 1;
  return group_shift >= 6   ? g * 2 + h
         : group_shift == 5 ? g * 4 + q * 2 + h
                            : g * 8 + (q & 1) * 4 + (q >> 1) * 2 + h;
}

template <Codes kCodes>
__device__ inline float2 scale_at(const Rows& w, int row, int eight) {
  if constexpr (kCodes == Codes::kBF16) {
    return {1.0f, 0.0f};
  } else {
    const size_t unit = static_cast<size_t>(row >> 4) * (w.padded / 64) + eight / 8;
    const int q = (eight & 7) * 8 >> w.group_shift;
    if constexpr (kCodes == Codes::kF8)
      return {__ldg(static_cast<const float*>(w.scales) + unit * 16 + scale_place(6, row, 0)), 0.0f};
    const auto* scales = static_cast<const __half2*>(w.scales) + unit * 16 * groups_of_unit(w.group_shift);
    return __half22float2(__ldg(scales + scale_place(w.group_shift, row, q)));
  }
}

}  // namespace mlxs::cuda
