#include <immintrin.h>

#include "backend/cpu/limits_kernels.h"

namespace mlxs::cpu {

double multiply_add_avx2(std::int64_t rounds) {
  constexpr int kChains = 12;  // covers latency 4 at two a cycle
  __m256 sums[kChains];
  volatile float source = 0.5f;
  const __m256 a = _mm256_set1_ps(source), b = _mm256_set1_ps(source);
  for (__m256& sum : sums) sum = a;
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm256_fmadd_ps(sums[c], a, b);
  }
  volatile float sink = 0;
  for (const __m256& sum : sums) sink = sink + _mm256_cvtss_f32(sum);
  return 2.0 * 8 * kChains * static_cast<double>(rounds);
}

}  // namespace mlxs::cpu
