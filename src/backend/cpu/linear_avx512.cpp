// AVX-512 with VNNI: 8-bit codes times 15-bit activations, as two byte dot products. Weights are read once
// for up to eight rows. At one row about 40 vector instructions cover 320 bytes, so a core waits for memory,
// not for arithmetic.
#include "backend/cpu/linear_rows.h"
#include "backend/cpu/panel512.h"

namespace mlxs::cpu {
namespace {

inline __m512i broadcast4(const std::int8_t* at) {
  std::int32_t word;
  std::memcpy(&word, at, 4);
  return _mm512_set1_epi32(word);
}

template <Packing P, int R>
void dot_rows(const PanelView& panel, const QuantizedRows& x, float* sums) {
  constexpr PackedFormat kFormat = packed_format(P);
  constexpr int kGroups = kBlock / kFormat.group;
  constexpr int kVectors = 8 / kGroups;
  __m512 total[R];
  for (int r = 0; r < R; ++r) total[r] = _mm512_setzero_ps();
  const std::byte* codes = panel.codes;
  const std::byte* scales = panel.scales;
  for (int b = 0; b < panel.blocks; ++b, codes += kFormat.code_bytes(), scales += kFormat.scale_bytes()) {
    prefetch_block<P>(panel, b);
    __m512i w[8];
    load_codes<P>(codes, w);
    for (int g = 0; g < kGroups; ++g) {
      const __m512 scale = load_scale<P>(scales, g);
      const __m512 min = load_min<P>(scales, g);
      // Rows take turns: a sum waits five cycles for itself, and other rows' fill them.
      __m512i high[R], low[R];
      for (int r = 0; r < R; ++r) {
        const BlockSums& sum = x.sum(r, b);
        high[r] = low[r] = _mm512_setzero_si512();
        if constexpr (!kFormat.has_min) {
          low[r] =
              _mm512_set1_epi32(-kFormat.zero * (kGroups == 1 ? sum.integer_all : sum.integer_halves[g]));
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i) {
        const int v = g * kVectors + i;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const std::int8_t* q = x.block(r, b);
          high[r] = _mm512_dpbusd_epi32(high[r], w[v], broadcast4(q + 4 * v));
          low[r] = _mm512_dpbusd_epi32(low[r], w[v], broadcast4(q + 32 + 4 * v));
        }
      }
      for (int r = 0; r < R; ++r) {
        add_product<P>(_mm512_add_epi32(_mm512_slli_epi32(high[r], 8), low[r]), scale, min, x.sum(r, b), g,
                       total[r]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    _mm512_storeu_ps(sums + r * kLanes, _mm512_mul_ps(total[r], _mm512_set1_ps(x.scales[r])));
  }
}

// Dense weights: k and k+1 of all lanes as floats.
template <Packing P>
inline void load_pair(const std::byte* pair, __m512* w) {
  if constexpr (P == Packing::kF32) {
    w[0] = _mm512_loadu_ps(pair);
    w[1] = _mm512_loadu_ps(pair + 64);
  } else if constexpr (P == Packing::kF16) {
    w[0] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(pair)));
    w[1] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(pair + 32)));
  } else {
    const __m512i both = load512(pair);
    w[0] = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    w[1] = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
}

// Two sums a row, whatever their number: a row's result does not depend on its company.
template <Packing P, int R>
void dot_dense(const PanelView& panel, const float* x, std::size_t stride, float* sums) {
  constexpr int kPairBytes = static_cast<int>(packed_format(P).code_bytes()) / (kBlock / 2);
  __m512 total[R][2];
  for (auto& row : total) row[0] = row[1] = _mm512_setzero_ps();
  const std::byte* at = panel.codes;
  for (int b = 0; b < panel.blocks; ++b) {
    prefetch_block<P>(panel, b);
    for (int pair = 0; pair < kBlock / 2; ++pair, at += kPairBytes) {
      __m512 w[2];
      load_pair<P>(at, w);
      const std::size_t k = static_cast<std::size_t>(b * kBlock + 2 * pair);
      for (int r = 0; r < R; ++r) {
        const float* row = x + static_cast<std::size_t>(r) * stride + k;
        total[r][0] = _mm512_fmadd_ps(w[0], _mm512_set1_ps(row[0]), total[r][0]);
        total[r][1] = _mm512_fmadd_ps(w[1], _mm512_set1_ps(row[1]), total[r][1]);
      }
    }
  }
  for (int r = 0; r < R; ++r) _mm512_storeu_ps(sums + r * kLanes, _mm512_add_ps(total[r][0], total[r][1]));
}

template <Packing P>
void dot(const PanelView& panel, const QuantizedRows& x, int rows, float* sums) {
  switch (rows) {
    case 1:
      return dot_rows<P, 1>(panel, x, sums);
    case 2:
      return dot_rows<P, 2>(panel, x, sums);
    case 3:
      return dot_rows<P, 3>(panel, x, sums);
    case 4:
      return dot_rows<P, 4>(panel, x, sums);
    case 5:
      return dot_rows<P, 5>(panel, x, sums);
    case 6:
      return dot_rows<P, 6>(panel, x, sums);
    case 7:
      return dot_rows<P, 7>(panel, x, sums);
    default:
      return dot_rows<P, 8>(panel, x, sums);
  }
}

template <Packing P>
void dot_floats(const PanelView& panel, const float* x, std::size_t stride, int rows, float* sums) {
  switch (rows) {
    case 1:
      return dot_dense<P, 1>(panel, x, stride, sums);
    case 2:
      return dot_dense<P, 2>(panel, x, stride, sums);
    case 3:
      return dot_dense<P, 3>(panel, x, stride, sums);
    case 4:
      return dot_dense<P, 4>(panel, x, stride, sums);
    case 5:
      return dot_dense<P, 5>(panel, x, stride, sums);
    case 6:
      return dot_dense<P, 6>(panel, x, stride, sums);
    case 7:
      return dot_dense<P, 7>(panel, x, stride, sums);
    default:
      return dot_dense<P, 8>(panel, x, stride, sums);
  }
}

void quantize(const float* x, std::int64_t columns, const RowNorm& norm, const QuantizedRows& out, int row) {
  quantize_row(x, columns, norm, out, row, [](std::int8_t* codes, const std::int32_t* integers) {
    for (int half = 0; half < 2; ++half) {
      const __m512i all = _mm512_load_si512(integers + 16 * half);
      const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(all, _mm512_set1_epi32(128)), 8);
      _mm_store_si128(reinterpret_cast<__m128i*>(codes + 16 * half), _mm512_cvtepi32_epi8(high));
      _mm_store_si128(reinterpret_cast<__m128i*>(codes + 32 + 16 * half), _mm512_cvtepi32_epi8(all));
    }
  });
}

constexpr LinearKernels kKernels{
    .name = "avx512",
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

const LinearKernels& linear_avx512() { return kKernels; }

}  // namespace mlxs::cpu
