// nvcuda::wmma on the CPU: every lane holds the whole of a fragment.
#pragma once

#include "keywords.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int kM, int kN, int kK, class T, class Layout = row_major>
struct fragment {
  float values[16][16];
};

template <class F>
void fill_fragment(F& fragment, float value) {
  for (auto& row : fragment.values) std::fill(std::begin(row), std::end(row), value);
}
template <class Use, class Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, __nv_bfloat16, Layout>& to, const __nv_bfloat16* from,
                      unsigned stride) {
  for (unsigned i = 0; i < 16; ++i) {
    for (unsigned j = 0; j < 16; ++j) {
      const float value = __bfloat162float(from[i * stride + j]);
      (std::is_same_v<Layout, row_major> ? to.values[i][j] : to.values[j][i]) = value;
    }
  }
}
template <class D, class A, class B>
void mma_sync(D& d, const A& a, const B& b, const D& c) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) {
      float sum = c.values[i][j];
      for (int k = 0; k < 16; ++k) sum += a.values[i][k] * b.values[k][j];
      d.values[i][j] = sum;
    }
  }
}
template <class F>
void store_matrix_sync(float* to, const F& from, unsigned stride, layout_t) {
  for (unsigned i = 0; i < 16; ++i) std::copy_n(from.values[i], 16, to + i * stride);
}

}  // namespace nvcuda::wmma
