// Blocks of packed weights as B tiles of bf16: [16 pairs of k][16 lanes][2]. Scale and zero are folded in f32
// before the one rounding. For the AMX files; any pool thread.
#pragma once

#include "backend/cpu/panel512.h"

namespace mlxs::cpu {
namespace {

// 32 floats → 32 bf16, rounded to nearest even, NaN kept.
inline __m512i to_bf16(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// Lanes of two floats → lanes of (bf16, bf16). Half a unit is added before cutting; packing has made NaNs
// safe for that.
inline __m512i pair_of(__m512 even, __m512 odd) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i upper_half =
      _mm512_broadcast_i32x4(_mm_setr_epi8(2, 3, 0, 0, 6, 7, 0, 0, 10, 11, 0, 0, 14, 15, 0, 0));
  const __m512i low = _mm512_add_epi32(_mm512_castps_si512(even), half);
  const __m512i high = _mm512_add_epi32(_mm512_castps_si512(odd), half);
  return _mm512_mask_shuffle_epi8(high, 0x3333333333333333ull, low, upper_half);
}

// The `bits` wide code at bit `at` of each lane, as 1 + code · 2^(at - 23): it lies in the mantissa, so no
// conversion from integer is needed.
template <int at, int bits>
inline __m512 one_plus(__m512i codes) {
  static_assert(at + bits <= 23);
  constexpr int kMask = ((1 << bits) - 1) << at;
  return _mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(codes, _mm512_set1_epi32(kMask), _mm512_set1_epi32(0x3f800000), 0xea));
}

// weight = scale · (code - zero) + min = factor · (1 + code · 2^(at - 23)) + offset
struct Line {
  __m512 factor, offset;
  __m512 at(__m512 x) const { return _mm512_fmadd_ps(x, factor, offset); }
};
struct GroupLine {
  __m512 scale, base;  // base: min, or -zero · scale

  template <Packing P>
  static GroupLine load(const std::byte* scales, int group) {
    constexpr PackedFormat kFormat = packed_format(P);
    const __m512 scale = load_scale<P>(scales, group);
    if constexpr (kFormat.has_min) return {scale, load_min<P>(scales, group)};
    return {scale, _mm512_mul_ps(scale, _mm512_set1_ps(-static_cast<float>(kFormat.zero)))};
  }
  Line for_codes_at(int at) const {
    const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(static_cast<float>(1 << (23 - at))));
    return {factor, _mm512_sub_ps(base, factor)};
  }
};

// Four bits with one scale: most nibbles already lie where a mantissa can hold them, two shifts move the
// rest. At bit 8 the offset is rounded to scale / 512, far below what bf16 rounds off.
template <Packing P>
inline void fold_nibbles(const std::byte* codes, const std::byte* scales, std::uint16_t* tile) {
  const GroupLine group = GroupLine::load<P>(scales, 0);
  const Line at8 = group.for_codes_at(8), at12 = group.for_codes_at(12), at16 = group.for_codes_at(16);
  for (int j = 0; j < 4; ++j, tile += 128) {
    const __m512i p = load512(codes + 64 * j);
    const __m512i left = _mm512_slli_epi32(p, 12), right = _mm512_srli_epi32(p, 12);
    const __m512 n0 = at12.at(one_plus<12, 4>(left)), n1 = at16.at(one_plus<16, 4>(left));
    const __m512 n2 = at8.at(one_plus<8, 4>(p)), n3 = at12.at(one_plus<12, 4>(p));
    const __m512 n4 = at16.at(one_plus<16, 4>(p)), n5 = at8.at(one_plus<8, 4>(right));
    const __m512 n6 = at12.at(one_plus<12, 4>(right)), n7 = at16.at(one_plus<16, 4>(right));
    _mm512_store_si512(tile, pair_of(n0, n2));  // even nibbles: vector 2j, odd: 2j + 1
    _mm512_store_si512(tile + 32, pair_of(n4, n6));
    _mm512_store_si512(tile + 64, pair_of(n1, n3));
    _mm512_store_si512(tile + 96, pair_of(n5, n7));
  }
}

template <Packing P>
inline void fold_bytes(const std::byte* codes, const std::byte* scales, std::uint16_t* tile) {
  constexpr int kGroups = kBlock / packed_format(P).group;
  constexpr int kVectors = 8 / kGroups;
  __m512i w[8];
  load_codes<P>(codes, w);
  for (int g = 0; g < kGroups; ++g) {
    const Line line = GroupLine::load<P>(scales, g).for_codes_at(15);
    for (int i = 0; i < kVectors; ++i, tile += 64) {
      const __m512i v = w[g * kVectors + i];
      _mm512_store_si512(tile, pair_of(line.at(one_plus<15, 8>(_mm512_slli_epi32(v, 15))),
                                       line.at(one_plus<15, 8>(_mm512_slli_epi32(v, 7)))));
      _mm512_store_si512(tile + 32, pair_of(line.at(one_plus<15, 8>(_mm512_srli_epi32(v, 1))),
                                            line.at(one_plus<15, 8>(_mm512_srli_epi32(v, 9)))));
    }
  }
}

inline void fold_f16(const std::byte* codes, std::uint16_t* tile) {
  // Rounded together, then (lanes of k, lanes of k+1) → pairs.
  alignas(64) static constexpr std::uint16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                                21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                                11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i interleave = _mm512_load_si512(kInterleave);
  for (int pair = 0; pair < kBlock / 2; ++pair, codes += 64, tile += 32) {
    const __m512 even = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
    const __m512 odd = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 32)));
    _mm512_store_si512(tile, _mm512_permutexvar_epi16(interleave, to_bf16(even, odd)));
  }
}

// The tile of block b: in memory where the weights are bf16 already, else written to `buffer` (64-byte
// aligned).
template <Packing P>
[[gnu::always_inline]] inline const std::uint16_t* fold_block(const PanelView& panel, int b,
                                                              std::uint16_t* buffer) {
  constexpr PackedFormat kFormat = packed_format(P);
  const std::byte* codes = panel.codes + static_cast<std::size_t>(b) * kFormat.code_bytes();
  const std::byte* scales = panel.scales + static_cast<std::size_t>(b) * kFormat.scale_bytes();
  prefetch_block<P>(panel, b);
  if constexpr (P == Packing::kBF16) return reinterpret_cast<const std::uint16_t*>(codes);
  if constexpr (P == Packing::kF16) {
    fold_f16(codes, buffer);
  } else if constexpr (kFormat.codes == Codes::k4 && kFormat.group == kBlock) {
    fold_nibbles<P>(codes, scales, buffer);
  } else {
    fold_bytes<P>(codes, scales, buffer);
  }
  return buffer;
}

}  // namespace
}  // namespace mlxs::cpu
