#include "backend/cpu/attention_float16.h"
#include "backend/cpu/sample_kernels.h"

namespace mlxs::cpu {
namespace {

constexpr float kInfinity = __builtin_inff();

inline __mmask16 lanes_left(int count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << count) - 1);
}

bool scan(const float* x, int count, float* maxima) {
  __mmask16 nan = 0;
  for (int group = 0; group < count; group += kGroup, maxima += kLaneMaxima) {
    const int end = group + kGroup < count ? group + kGroup : count;
    const __m512 lowest = _mm512_set1_ps(-kInfinity);
    __m512 best[4] = {lowest, lowest, lowest, lowest};
    int i = group;
    for (; i + 64 <= end; i += 64) {
      for (int v = 0; v < 4; ++v) {
        const __m512 value = _mm512_loadu_ps(x + i + 16 * v);
        best[v] = _mm512_max_ps(value, best[v]);  // a NaN value keeps best
        nan = static_cast<__mmask16>(nan | _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q));
      }
    }
    for (; i < end; i += 16) {
      const __m512 value = _mm512_mask_loadu_ps(lowest, lanes_left(end - i), x + i);
      best[0] = _mm512_max_ps(value, best[0]);
      nan = static_cast<__mmask16>(nan | _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q));
    }
    _mm512_storeu_ps(maxima, _mm512_max_ps(_mm512_max_ps(best[0], best[1]), _mm512_max_ps(best[2], best[3])));
  }
  return nan != 0;
}

int find(const float* x, int count, float value) {
  const __m512 wanted = _mm512_set1_ps(value);
  for (int i = 0; i < count; i += 16) {
    const __mmask16 left = lanes_left(count - i);
    const __mmask16 equal =
        _mm512_mask_cmp_ps_mask(left, _mm512_maskz_loadu_ps(left, x + i), wanted, _CMP_EQ_OQ);
    if (equal != 0) return i + __builtin_ctz(equal);
  }
  return count;
}

inline double reduce_wide(__m512 x) {
  return _mm512_reduce_add_pd(_mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
                                            _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))));
}

template <bool kWithTiers>
void sum_groups(const float* x, int count, __m512 shift, __m512 factor, TierSums& sums) {
  // f32 lanes over a group at most, f64 above.
  for (int group = 0; group < count; group += kGroup) {
    const int end = group + kGroup < count ? group + kGroup : count;
    __m512 total = _mm512_setzero_ps();
    __m512 above[kTiers] = {total, total, total, total};
    for (int i = group; i < end; i += 16) {
      const __mmask16 left = lanes_left(end - i);
      const __m512 value = _mm512_maskz_loadu_ps(left, x + i);
      const __m512 score = _mm512_mul_ps(_mm512_sub_ps(value, shift), factor);
      const __m512 weight = Float16::exp2(score);
      total = _mm512_mask_add_ps(total, left, total, weight);
      if constexpr (kWithTiers) {
        for (int t = 0; t < kTiers; ++t) {
          const __mmask16 in =
              _mm512_mask_cmp_ps_mask(left, score, _mm512_set1_ps(kTierScores[t]), _CMP_GE_OQ);
          above[t] = _mm512_mask_add_ps(above[t], in, above[t], weight);
        }
      }
    }
    sums.total += reduce_wide(total);
    if constexpr (kWithTiers) {
      for (int t = 0; t < kTiers; ++t) sums.above[t] += reduce_wide(above[t]);
    }
  }
}

void sum(const float* x, int count, float shift, float factor, bool tiers, TierSums& sums) {
  if (tiers) {
    sum_groups<true>(x, count, _mm512_set1_ps(shift), _mm512_set1_ps(factor), sums);
  } else {
    sum_groups<false>(x, count, _mm512_set1_ps(shift), _mm512_set1_ps(factor), sums);
  }
}

void weigh(const float* x, int count, float shift, float factor, float* weights) {
  for (int i = 0; i < count; i += 16) {
    const __mmask16 left = lanes_left(count - i);
    const __m512 score = _mm512_mul_ps(
        _mm512_sub_ps(_mm512_maskz_loadu_ps(left, x + i), _mm512_set1_ps(shift)), _mm512_set1_ps(factor));
    _mm512_mask_storeu_ps(weights + i, left, Float16::exp2(score));
  }
}

int gather(const float* x, int count, float shift, float factor, float least, int first_id, std::int32_t* ids,
           float* values) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int found = 0;
  for (int i = 0; i < count; i += 16) {
    const __mmask16 left = lanes_left(count - i);
    const __m512 value = _mm512_maskz_loadu_ps(left, x + i);
    const __m512 score = _mm512_mul_ps(_mm512_sub_ps(value, _mm512_set1_ps(shift)), _mm512_set1_ps(factor));
    const __mmask16 in = _mm512_mask_cmp_ps_mask(left, score, _mm512_set1_ps(least), _CMP_GE_OQ);
    if (in == 0) continue;
    // Compress in registers and store whole vectors: compressing stores are microcoded on some processors.
    _mm512_storeu_ps(values + found, _mm512_maskz_compress_ps(in, value));
    _mm512_storeu_si512(ids + found, _mm512_maskz_compress_epi32(
                                         in, _mm512_add_epi32(lane, _mm512_set1_epi32(first_id + i))));
    found += __builtin_popcount(in);
  }
  return found;
}

void mask(const float* x, int count, const std::uint32_t* allowed, float* out) {
  for (int i = 0; i < count; i += 16) {
    const __mmask16 left = lanes_left(count - i);
    const auto bits = static_cast<__mmask16>(allowed[i / 32] >> (i % 32));
    _mm512_mask_storeu_ps(
        out + i, left,
        _mm512_mask_loadu_ps(_mm512_set1_ps(-kInfinity), static_cast<__mmask16>(left & bits), x + i));
  }
}

}  // namespace

const SampleKernels& sample_avx512() {
  static constexpr SampleKernels kKernels{"avx512", scan, find, sum, weigh, gather, mask};
  return kKernels;
}

}  // namespace mlxs::cpu
