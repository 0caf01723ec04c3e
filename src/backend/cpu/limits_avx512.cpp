#include <immintrin.h>

#include "backend/cpu/limits_kernels.h"

namespace mlxs::cpu {

std::uint64_t read_stream_avx512(const std::byte* data, std::size_t bytes) {
  __m512i sums[8];
  for (__m512i& sum : sums) sum = _mm512_setzero_si512();
  for (std::size_t i = 0; i < bytes; i += 512) {
    _mm_prefetch(reinterpret_cast<const char*>(data + i + 4096), _MM_HINT_T0);
#pragma GCC unroll 8
    for (std::size_t line = 0; line < 8; ++line) {
      sums[line] = _mm512_xor_si512(sums[line], _mm512_load_si512(data + i + 64 * line));
    }
  }
  for (int line = 1; line < 8; ++line) sums[0] = _mm512_xor_si512(sums[0], sums[line]);
  return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(sums[0]));
}

double multiply_add_avx512(std::int64_t rounds) {
  constexpr int kChains = 12;
  __m512 sums[kChains];
  volatile float source = 0.5f;
  const __m512 a = _mm512_set1_ps(source), b = _mm512_set1_ps(source);
  for (__m512& sum : sums) sum = a;
  for (std::int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) sums[c] = _mm512_fmadd_ps(sums[c], a, b);
  }
  volatile float sink = 0;
  for (const __m512& sum : sums) sink = sink + _mm512_cvtss_f32(sum);
  return 2.0 * 16 * kChains * static_cast<double>(rounds);
}

}  // namespace mlxs::cpu
