// Reading panels of the packed layout into 512-bit registers, for the AVX-512 and AMX files.
#pragma once

// GCC 12 takes the deliberately undefined inputs of its own AVX-512 intrinsics for mistakes (its bug 105593).
#pragma GCC diagnostic push
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstring>

#include "backend/cpu/linear_kernels.h"

namespace mlxs::cpu {
namespace {

inline __m512i load512(const std::byte* at) { return _mm512_loadu_si512(at); }

// What lies ahead of block b, into the L2 cache: far enough that memory is busy while this block is
// multiplied.
template <Packing P>
[[gnu::always_inline]] inline void prefetch_block(const PanelView& panel, int b) {
  constexpr std::size_t kBytes = packed_format(P).block_bytes();
  const std::byte* at = panel.ahead + static_cast<std::size_t>(b) * kBytes;
  for (std::size_t i = 0; i < kBytes; i += 64)
    _mm_prefetch(reinterpret_cast<const char*>(at + i), _MM_HINT_T1);
}

// The block's codes as unsigned bytes: vector v holds k = 4v … 4v+3 of all lanes.
template <Packing P>
inline void load_codes(const std::byte* block, __m512i* v) {
  constexpr PackedFormat kFormat = packed_format(P);
  if constexpr (kFormat.codes == Codes::k8) {
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    for (int i = 0; i < 8; ++i) v[i] = _mm512_xor_si512(load512(block + 64 * i), sign);
    return;
  }
  const __m512i nibble = _mm512_set1_epi8(15);
  for (int j = 0; j < 4; ++j) {
    const __m512i pair = load512(block + 64 * j);
    v[2 * j] = _mm512_and_si512(pair, nibble);
    v[2 * j + 1] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), nibble);
  }
  if constexpr (kFormat.codes == Codes::kTable) {
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(code_table(P))));
    for (int i = 0; i < 8; ++i) v[i] = _mm512_shuffle_epi8(table, v[i]);
  }
  if constexpr (kFormat.codes == Codes::k5) {
    const __m512i sixteen = _mm512_set1_epi8(16);
    for (int i = 0; i < 8; ++i) {
      std::uint64_t mask;
      std::memcpy(&mask, block + 256 + 8 * i, 8);
      v[i] = _mm512_mask_add_epi8(v[i], mask, v[i], sixteen);
    }
  }
  if constexpr (kFormat.codes == Codes::k6) {
    const __m512i upper = _mm512_set1_epi8(0x30);
    for (int h = 0; h < 2; ++h) {
      const __m512i bits = load512(block + 256 + 64 * h);
      const __m512i parts[4] = {_mm512_slli_epi16(bits, 4), _mm512_slli_epi16(bits, 2), bits,
                                _mm512_srli_epi16(bits, 2)};
      for (int t = 0; t < 4; ++t) {
        v[4 * h + t] = _mm512_ternarylogic_epi32(v[4 * h + t], parts[t], upper, 0xf8);  // a | (b & c)
      }
    }
  }
}

// Sixteen scales or mins; `index` counts vectors of 16 within the block.
template <Packing P>
inline __m512 load_scale(const std::byte* block, int index) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 32 * index));
  if constexpr (packed_format(P).bf16_scale) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  } else {
    return _mm512_cvtph_ps(bits);
  }
}

// total += scale · dot + min · Σ x for one row and one group, in units of the row's scale. Dots by VNNI and
// by int8 tiles end here, so they agree to the last bit. dot: Σ code · x, less zero · Σ x where the format
// has a zero point.
template <Packing P>
inline void add_product(__m512i dot, __m512 scale, __m512 min, const BlockSums& x, int group, __m512& total) {
  constexpr PackedFormat kFormat = packed_format(P);
  total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, total);
  if constexpr (kFormat.has_min) {
    total = _mm512_fmadd_ps(min, _mm512_set1_ps(kFormat.group == kBlock ? x.all : x.halves[group]), total);
  }
}

template <Packing P>
inline __m512 load_min(const std::byte* block, int group) {
  constexpr PackedFormat kFormat = packed_format(P);
  return kFormat.has_min ? load_scale<P>(block, kBlock / kFormat.group + group) : _mm512_setzero_ps();
}

}  // namespace
}  // namespace mlxs::cpu
