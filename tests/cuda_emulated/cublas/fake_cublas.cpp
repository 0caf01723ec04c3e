// The part of cuBLASLt that backend/cuda/blas.cpp calls, on the CPU: columns after columns, bf16 in, f32 or
// bf16 out.
#include "fake_cublas.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>

#include "backend/cpu/float_bits.h"

namespace {

mlxs::cuda::FakeCublas state;

// Any of its handles.
struct Thing {
  int type = 0;  // 0: f32, 14: bf16
  std::uint64_t rows = 0, columns = 0;
  std::int64_t apart = 0;
  std::map<int, std::uint64_t> set;
};
struct Algorithm {
  std::uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  std::size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

int make(void** to) {
  *to = new Thing;
  ++state.handles;
  return 0;
}
int drop(void* thing) {
  delete static_cast<Thing*>(thing);
  --state.handles;
  return 0;
}
int set(void* thing, int attribute, const void* value, std::size_t bytes) {
  std::memcpy(&static_cast<Thing*>(thing)->set[attribute], value, bytes);
  return 0;
}

double value_at(const void* from, const Thing& layout, std::uint64_t row, std::uint64_t column) {
  const auto at = column * static_cast<std::uint64_t>(layout.apart) + row;
  if (layout.type == 0) return static_cast<const float*>(from)[at];
  return mlxs::cpu::bf16_to_float(static_cast<const std::uint16_t*>(from)[at]);
}

}  // namespace

extern "C" {

mlxs::cuda::FakeCublas* fake_cublas() { return &state; }

int cublasLtCreate(void** handle) { return state.start_status != 0 ? state.start_status : make(handle); }
int cublasLtDestroy(void* handle) { return drop(handle); }
std::size_t cublasLtGetVersion() { return 130002; }
int cublasLtMatmulDescCreate(void** product, int compute, int scale) {
  return compute == 68 && scale == 0 ? make(product) : 7;
}
int cublasLtMatmulDescSetAttribute(void* product, int attribute, const void* value, std::size_t bytes) {
  return set(product, attribute, value, bytes);
}
int cublasLtMatmulDescDestroy(void* product) { return drop(product); }
int cublasLtMatrixLayoutCreate(void** layout, int type, std::uint64_t rows, std::uint64_t columns,
                               std::int64_t apart) {
  if (apart < static_cast<std::int64_t>(rows)) return 7;
  make(layout);
  *static_cast<Thing*>(*layout) = {.type = type, .rows = rows, .columns = columns, .apart = apart, .set = {}};
  return 0;
}
int cublasLtMatrixLayoutDestroy(void* layout) { return drop(layout); }
int cublasLtMatmulPreferenceCreate(void** wishes) { return make(wishes); }
int cublasLtMatmulPreferenceSetAttribute(void* wishes, int attribute, const void* value, std::size_t bytes) {
  return set(wishes, attribute, value, bytes);
}
int cublasLtMatmulPreferenceDestroy(void* wishes) { return drop(wishes); }
int cublasLtMatmulAlgoGetHeuristic(void*, void*, void*, void*, void*, void*, void*, int most,
                                   Heuristic* found, int* count) {
  *count = state.proposals < most ? state.proposals : most;
  for (int i = 0; i < *count; ++i) found[i].algorithm.data[0] = static_cast<std::uint64_t>(i);
  return 0;
}
int cublasLtMatmul(void*, void* description, const void* alpha, const void* a, void* a_layout, const void* b,
                   void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                   const Algorithm* algorithm, void*, std::size_t, void*) {
  state.last = static_cast<int>(algorithm->data[0]);
  ++state.products;
  if (state.last == state.failing) return 15;
  const auto &product = *static_cast<Thing*>(description), &of_a = *static_cast<Thing*>(a_layout),
             &of_b = *static_cast<Thing*>(b_layout), &of_c = *static_cast<Thing*>(c_layout),
             &of_d = *static_cast<Thing*>(d_layout);
  const bool transposed = product.set.contains(3) && product.set.at(3) == 1;
  const auto outputs = transposed ? of_a.columns : of_a.rows, sums = transposed ? of_a.rows : of_a.columns;
  if (of_b.rows != sums || of_d.rows != outputs || of_d.columns != of_b.columns) return 7;
  float one, other;
  std::memcpy(&one, alpha, sizeof(one));
  std::memcpy(&other, beta, sizeof(other));
  for (std::uint64_t column = 0; column < of_d.columns; ++column) {
    for (std::uint64_t row = 0; row < outputs; ++row) {
      double sum = 0;
      for (std::uint64_t k = 0; k < sums; ++k)
        sum += (transposed ? value_at(a, of_a, k, row) : value_at(a, of_a, row, k)) *
               value_at(b, of_b, k, column);
      const double added = other != 0 ? other * value_at(c, of_c, row, column) : 0;
      const auto result = static_cast<float>(one * sum + added);
      const auto at = column * static_cast<std::uint64_t>(of_d.apart) + row;
      if (of_d.type == 0) {
        static_cast<float*>(d)[at] = result;
      } else {
        static_cast<std::uint16_t*>(d)[at] = mlxs::cpu::float_to_bf16(result);
      }
    }
  }
  return 0;
}

}  // extern "C"
