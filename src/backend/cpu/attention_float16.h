// Vectors of sixteen floats for the AVX-512 and AMX files.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace mlxs::cpu {
namespace {

struct Float16 {
  using F = __m512;
  struct Pair {
    F even, odd;
  };
  struct Quad {
    F part[4];
  };
  static constexpr int kLanes = 16;
  static constexpr int kRows = 8;
  static constexpr int kPagePairRows = 4;
  static constexpr int kValueVectors = 4;

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* at) { return _mm512_loadu_ps(at); }
  static void store(float* at, F x) { _mm512_storeu_ps(at, x); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F swap_pairs(F x) { return _mm512_permute_ps(x, 0xb1); }
  static float first(F x) { return _mm512_cvtss_f32(x); }
  static float reduce_add(F x) { return _mm512_reduce_add_ps(x); }
  static float reduce_max(F x) { return _mm512_reduce_max_ps(x); }
  // 2^x = 2^(x - ⌊x⌋) · 2^⌊x⌋: reduce, polynomial on [0, 1) (8e-8), scalef. No clamps: -inf gives 0, NaN
  // stays.
  static F exp2(F x) {
    const F f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    F p = set1(0.0018671300495043397f);
    p = _mm512_fmadd_ps(p, f, set1(0.009017029777169228f));
    p = _mm512_fmadd_ps(p, f, set1(0.05579991266131401f));
    p = _mm512_fmadd_ps(p, f, set1(0.24016444385051727f));
    p = _mm512_fmadd_ps(p, f, set1(0.6931512951850891f));
    p = _mm512_fmadd_ps(p, f, set1(1.0f));
    return _mm512_scalef_ps(p, x);
  }
  static F tanh(F x) {
    const F one = set1(1.0f);
    return _mm512_sub_ps(
        one, _mm512_div_ps(set1(2.0f), _mm512_add_ps(one, exp2(_mm512_mul_ps(x, set1(2.885390082f))))));
  }

  static Pair load_pair(const std::byte* at) {
    const __m512i x = _mm512_loadu_si512(at);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
  }
  static Quad load_quad(const std::byte* at) {
    const __m512i x = _mm512_loadu_si512(at);
    return {{_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(x, 24), 24)),
             _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(x, 16), 24)),
             _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(x, 8), 24)),
             _mm512_cvtepi32_ps(_mm512_srai_epi32(x, 24))}};
  }
  static F dot(F sum, Pair cell, const float* with) {
    return _mm512_fmadd_ps(cell.odd, set1(with[1]), _mm512_fmadd_ps(cell.even, set1(with[0]), sum));
  }
  static F dot4(F sum, Quad cell, const float* with) {
    for (int i = 0; i < 4; ++i) sum = _mm512_fmadd_ps(cell.part[i], set1(with[i]), sum);
    return sum;
  }
};

}  // namespace
}  // namespace mlxs::cpu
