// AVX2: codes widened to 16 bits times 15-bit activations, 32-bit sums: as exact as the AVX-512 path, without
// VNNI. Even and odd bytes of a vector are widened by masks and shifts in place, so activations lie in the
// order 0, 2, 1, 3.
#include <immintrin.h>

#include "backend/cpu/linear_rows.h"

namespace mlxs::cpu {
namespace {

constexpr int kHalf = 8;  // lanes of a register: a panel is worked on in two halves

// As in panel512.h.
template <Packing P>
inline void prefetch_block(const PanelView& panel, int b) {
  constexpr std::size_t kBytes = packed_format(P).block_bytes();
  const std::byte* at = panel.ahead + static_cast<std::size_t>(b) * kBytes;
  for (std::size_t i = 0; i < kBytes; i += 64)
    _mm_prefetch(reinterpret_cast<const char*>(at + i), _MM_HINT_T1);
}

inline __m256i load256(const std::byte* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

// Four codes of each of eight lanes as 16-bit integers: k, k+2 and k+1, k+3.
struct Words {
  __m256i even, odd;
};

// Vector v of the block's codes, lanes of `half`.
template <Packing P>
inline Words load_words(const std::byte* block, int v, int half) {
  constexpr PackedFormat kFormat = packed_format(P);
  const __m256i low_bytes = _mm256_set1_epi16(0x00ff);
  if constexpr (kFormat.codes == Codes::k8) {
    const __m256i bytes = load256(block + v * 64 + half * 32);
    return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8),
            _mm256_srai_epi16(bytes, 8)};  // signed in memory
  } else {
    const __m256i pair = load256(block + v / 2 * 64 + half * 32);
    const __m256i nibble = _mm256_set1_epi16(0x000f);
    if constexpr (kFormat.codes == Codes::k4) {
      const __m256i at = v % 2 == 0 ? pair : _mm256_srli_epi16(pair, 4);
      return {_mm256_and_si256(at, nibble), _mm256_and_si256(_mm256_srli_epi16(at, 8), nibble)};
    }
    __m256i bytes = _mm256_and_si256(v % 2 == 0 ? pair : _mm256_srli_epi16(pair, 4), _mm256_set1_epi8(15));
    if constexpr (kFormat.codes == Codes::kTable) {
      const __m256i table =
          _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(code_table(P))));
      bytes = _mm256_shuffle_epi8(table, bytes);
    } else if constexpr (kFormat.codes == Codes::k5) {
      // 32 bits, one a byte: each byte of the register gets the byte that holds its bit, then tests it.
      std::int32_t bits;
      std::memcpy(&bits, block + 256 + v * 8 + half * 4, 4);
      const __m256i spread = _mm256_shuffle_epi8(
          _mm256_set1_epi32(bits), _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                                    2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
      const __m256i test = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
      const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, test), test);
      bytes = _mm256_or_si256(bytes, _mm256_and_si256(set, _mm256_set1_epi8(16)));
    } else if constexpr (kFormat.codes == Codes::k6) {
      const __m256i upper = load256(block + 256 + v / 4 * 64 + half * 32);
      const __m256i placed =
          v % 4 == 3 ? _mm256_srli_epi16(upper, 2) : _mm256_slli_epi16(upper, 4 - v % 4 * 2);
      bytes = _mm256_or_si256(bytes, _mm256_and_si256(placed, _mm256_set1_epi8(0x30)));
    }
    return {_mm256_and_si256(bytes, low_bytes), _mm256_srli_epi16(bytes, 8)};
  }
}

template <Packing P>
inline __m256 load_scale(const std::byte* block, int index, int half) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 32 * index + 16 * half));
  if constexpr (packed_format(P).bf16_scale) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  } else {
    return _mm256_cvtph_ps(bits);
  }
}

inline __m256i broadcast4(const std::int8_t* at) {
  std::int32_t word;
  std::memcpy(&word, at, 4);
  return _mm256_set1_epi32(word);
}

template <Packing P, int R>
void dot_half(const PanelView& panel, const QuantizedRows& x, int half, float* sums) {
  constexpr PackedFormat kFormat = packed_format(P);
  constexpr int kGroups = kBlock / kFormat.group;
  constexpr int kVectors = 8 / kGroups;
  // 8-bit codes are read signed, as code - 128.
  constexpr int kZero = kFormat.codes == Codes::k8 ? (kFormat.has_min ? -128 : 0) : kFormat.zero;
  __m256 total[R];
  for (int r = 0; r < R; ++r) total[r] = _mm256_setzero_ps();
  const std::byte* codes = panel.codes;
  const std::byte* scales = panel.scales;
  for (int b = 0; b < panel.blocks; ++b, codes += kFormat.code_bytes(), scales += kFormat.scale_bytes()) {
    if (half == 0) prefetch_block<P>(panel, b);
    for (int g = 0; g < kGroups; ++g) {
      __m256i dot[R];
      for (int r = 0; r < R; ++r) {
        const BlockSums& sum = x.sum(r, b);
        dot[r] = kZero == 0
                     ? _mm256_setzero_si256()
                     : _mm256_set1_epi32(-kZero * (kGroups == 1 ? sum.integer_all : sum.integer_halves[g]));
      }
      for (int i = 0; i < kVectors; ++i) {
        const int v = g * kVectors + i;
        const Words w = load_words<P>(codes, v, half);
        for (int r = 0; r < R; ++r) {
          const std::int8_t* q = x.block(r, b) + 8 * v;
          dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(w.even, broadcast4(q)));
          dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(w.odd, broadcast4(q + 4)));
        }
      }
      const __m256 scale = load_scale<P>(scales, g, half);
      for (int r = 0; r < R; ++r) {
        total[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r]), scale, total[r]);
        if constexpr (kFormat.has_min) {
          const __m256 min = load_scale<P>(scales, kGroups + g, half);
          const BlockSums& sum = x.sum(r, b);
          total[r] = _mm256_fmadd_ps(min, _mm256_set1_ps(kGroups == 1 ? sum.all : sum.halves[g]), total[r]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    _mm256_storeu_ps(sums + r * kLanes + half * kHalf, _mm256_mul_ps(total[r], _mm256_set1_ps(x.scales[r])));
  }
}

// Four rows' sums leave registers for the codes; more rows go in two calls, the panel then comes from the L1
// cache.
constexpr int kRowsAtOnce = 4;

template <Packing P>
void dot(const PanelView& panel, const QuantizedRows& x, int rows, float* sums) {
  for (int row = 0; row < rows; row += kRowsAtOnce, sums += kRowsAtOnce * kLanes) {
    const QuantizedRows some = x.from(row);
    for (int half = 0; half < 2; ++half) {
      switch (rows - row) {
        case 1:
          dot_half<P, 1>(panel, some, half, sums);
          break;
        case 2:
          dot_half<P, 2>(panel, some, half, sums);
          break;
        case 3:
          dot_half<P, 3>(panel, some, half, sums);
          break;
        default:
          dot_half<P, 4>(panel, some, half, sums);
          break;
      }
    }
  }
}

// ---------------------------------------------------------------- dense weights

// k and k+1 of eight lanes as floats.
template <Packing P>
inline void load_pair(const std::byte* pair, int half, __m256* w) {
  if constexpr (P == Packing::kF32) {
    w[0] = _mm256_loadu_ps(reinterpret_cast<const float*>(pair) + half * kHalf);
    w[1] = _mm256_loadu_ps(reinterpret_cast<const float*>(pair + 64) + half * kHalf);
  } else if constexpr (P == Packing::kF16) {
    w[0] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pair + 16 * half)));
    w[1] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pair + 32 + 16 * half)));
  } else {
    const __m256i both = load256(pair + 32 * half);
    w[0] = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
    w[1] = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
}

// Two sums a row, whatever their number: a row's result does not depend on its company. One half of the lanes
// at a time.
template <Packing P, int R>
void dot_dense(const PanelView& panel, const float* x, std::size_t stride, int half, float* sums) {
  constexpr int kPairBytes = static_cast<int>(packed_format(P).code_bytes()) / (kBlock / 2);
  __m256 total[R][2];
  for (auto& row : total) row[0] = row[1] = _mm256_setzero_ps();
  const std::byte* at = panel.codes;
  for (int b = 0; b < panel.blocks; ++b) {
    if (half == 0) prefetch_block<P>(panel, b);
    for (int pair = 0; pair < kBlock / 2; ++pair, at += kPairBytes) {
      __m256 w[2];
      load_pair<P>(at, half, w);
      const std::size_t k = static_cast<std::size_t>(b * kBlock + 2 * pair);
      for (int r = 0; r < R; ++r) {
        const float* row = x + static_cast<std::size_t>(r) * stride + k;
        total[r][0] = _mm256_fmadd_ps(w[0], _mm256_set1_ps(row[0]), total[r][0]);
        total[r][1] = _mm256_fmadd_ps(w[1], _mm256_set1_ps(row[1]), total[r][1]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    _mm256_storeu_ps(sums + r * kLanes + half * kHalf, _mm256_add_ps(total[r][0], total[r][1]));
  }
}

template <Packing P>
void dot_floats(const PanelView& panel, const float* x, std::size_t stride, int rows, float* sums) {
  for (int row = 0; row < rows; row += kRowsAtOnce, x += kRowsAtOnce * stride, sums += kRowsAtOnce * kLanes) {
    for (int half = 0; half < 2; ++half) {
      switch (rows - row) {
        case 1:
          dot_dense<P, 1>(panel, x, stride, half, sums);
          break;
        case 2:
          dot_dense<P, 2>(panel, x, stride, half, sums);
          break;
        case 3:
          dot_dense<P, 3>(panel, x, stride, half, sums);
          break;
        default:
          dot_dense<P, 4>(panel, x, stride, half, sums);
          break;
      }
    }
  }
}

void quantize(const float* x, std::int64_t columns, const RowNorm& norm, const QuantizedRows& out, int row) {
  quantize_row(x, columns, norm, out, row, [](std::int8_t* codes, const std::int32_t* integers) {
    std::int16_t words[kBlock];
    for (int i = 0; i < kBlock; i += 4) {
      words[i] = static_cast<std::int16_t>(integers[i]);
      words[i + 1] = static_cast<std::int16_t>(integers[i + 2]);
      words[i + 2] = static_cast<std::int16_t>(integers[i + 1]);
      words[i + 3] = static_cast<std::int16_t>(integers[i + 3]);
    }
    std::memcpy(codes, words, sizeof(words));
  });
}

constexpr LinearKernels kKernels{
    .name = "avx2",
    .rows_at_once = 8,
    .normalize = normalize_row,
    .quantize = quantize,
    .dot = {dot<Packing::k4Min>, dot<Packing::k4>, dot<Packing::k5Min>, dot<Packing::k5>, dot<Packing::k8>,
            dot<Packing::k4Min16>, dot<Packing::k4Group16>, dot<Packing::k6Group16>, dot<Packing::kTableF16>,
            dot<Packing::kTableBF16>, dot<Packing::k8Min>},
    .dot_floats = {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                   nullptr, dot_floats<Packing::kF32>, dot_floats<Packing::kF16>, dot_floats<Packing::kBF16>},
    .finish = finish_panel,
};

}  // namespace

const LinearKernels& linear_avx2() { return kKernels; }

}  // namespace mlxs::cpu
