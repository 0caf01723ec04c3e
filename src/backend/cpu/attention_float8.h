// Vectors of eight floats for the AVX2 files.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace mlxs::cpu {
namespace {

struct Float8 {
  using F = __m256;
  struct Pair {
    F even, odd;
  };
  struct Quad {
    F part[4];
  };
  static constexpr int kLanes = 8;
  static constexpr int kRows = 4;
  static constexpr int kPagePairRows = 1;
  static constexpr int kValueVectors = 2;

  static F zero() { return _mm256_setzero_ps(); }
  static F set1(float x) { return _mm256_set1_ps(x); }
  static F load(const float* at) { return _mm256_loadu_ps(at); }
  static void store(float* at, F x) { _mm256_storeu_ps(at, x); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F swap_pairs(F x) { return _mm256_permute_ps(x, 0xb1); }
  static float first(F x) { return _mm256_cvtss_f32(x); }
  static float reduce_add(F x) {
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
  }
  static float reduce_max(F x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
  }
  // As in attention_portable.cpp. The order of min's and max's operands lets NaN through.
  static F exp2(F x) {
    const F lowest = set1(-126.0f), round = set1(12582912.0f);
    const F tiny = _mm256_cmp_ps(x, lowest, _CMP_LT_OQ);
    x = _mm256_min_ps(set1(127.0f), _mm256_max_ps(lowest, x));
    const F shifted = _mm256_add_ps(x, round);
    const F f = _mm256_sub_ps(x, _mm256_sub_ps(shifted, round));
    F p = set1(0.001326472731307149f);
    p = _mm256_fmadd_ps(p, f, set1(0.009671512991189957f));
    p = _mm256_fmadd_ps(p, f, set1(0.05550733581185341f));
    p = _mm256_fmadd_ps(p, f, set1(0.24022242426872253f));
    p = _mm256_fmadd_ps(p, f, set1(0.6931470036506653f));
    p = _mm256_fmadd_ps(p, f, set1(1.0f));
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    const F power = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
    return _mm256_blendv_ps(_mm256_andnot_ps(tiny, power), x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
  static F tanh(F x) {
    const F one = set1(1.0f);
    return _mm256_sub_ps(
        one, _mm256_div_ps(set1(2.0f), _mm256_add_ps(one, exp2(_mm256_mul_ps(x, set1(2.885390082f))))));
  }

  static Pair load_pair(const std::byte* at) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
            _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int>(0xffff0000u))))};
  }
  static Quad load_quad(const std::byte* at) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return {{_mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(x, 24), 24)),
             _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(x, 16), 24)),
             _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(x, 8), 24)),
             _mm256_cvtepi32_ps(_mm256_srai_epi32(x, 24))}};
  }
  static F dot(F sum, Pair cell, const float* with) {
    return _mm256_fmadd_ps(cell.odd, _mm256_broadcast_ss(with + 1),
                           _mm256_fmadd_ps(cell.even, _mm256_broadcast_ss(with), sum));
  }
  static F dot4(F sum, Quad cell, const float* with) {
    for (int i = 0; i < 4; ++i) sum = _mm256_fmadd_ps(cell.part[i], _mm256_broadcast_ss(with + i), sum);
    return sum;
  }

  // Masks: all bits of a lane, or none.
  static F at_least(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
  static F unordered(F x) { return _mm256_cmp_ps(x, x, _CMP_UNORD_Q); }
  static F either(F a, F b) { return _mm256_or_ps(a, b); }
  static F both(F a, F b) { return _mm256_and_ps(a, b); }
  static bool any(F mask) { return _mm256_movemask_ps(mask) != 0; }
};

}  // namespace
}  // namespace mlxs::cpu
