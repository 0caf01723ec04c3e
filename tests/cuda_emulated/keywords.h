// Included before everything else when kernels are compiled for the CPU: CUDA's keywords, and the functions
// that its compiler knows.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "blocks.h"

#define MLXS_EMULATED 1

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __launch_bounds__
#undef __grid_constant__
#undef __restrict__
#undef __align__
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ kernels_do_without_it_see_stream_weights16_in_machine_cuh
#define __align__(n) __attribute__((aligned(n)))

#define threadIdx (mlxs::emulated::self().index)
#define blockIdx (mlxs::emulated::block().index)
#define blockDim (mlxs::emulated::block().size)
#define gridDim (mlxs::emulated::block().grid)

using std::isinf;
using std::isnan;
using std::max;
using std::min;

inline void __syncthreads() { mlxs::emulated::sync_block(); }
inline void __syncwarp() { mlxs::emulated::exchange("", 0); }
inline void __threadfence() {}

template <class T>
T __ldg(const T* at) {
  return *at;
}
template <class T>
T __ldcg(const T* at) {
  return *at;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t both = static_cast<std::uint64_t>(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i)
    result |= static_cast<unsigned>(both >> ((selector >> (4 * i) & 7) * 8) & 0xff) << (8 * i);
  return result;
}
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int atomicAdd(int* at, int value) {
  const int before = *at;
  *at += value;
  return before;
}
inline unsigned atomicAdd(unsigned* at, unsigned value) {
  const unsigned before = *at;
  *at += value;
  return before;
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  const int lane = mlxs::emulated::self().lane ^ mask;
  return mlxs::emulated::from_lane<T>(mlxs::emulated::exchange(&value, sizeof(T)), lane);
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return mlxs::emulated::from_lane<T>(mlxs::emulated::exchange(&value, sizeof(T)), lane % 32);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int by) {
  const int lane = mlxs::emulated::self().lane;
  return mlxs::emulated::from_lane<T>(mlxs::emulated::exchange(&value, sizeof(T)),
                                      lane >= by ? lane - by : lane);
}
inline unsigned __ballot_sync(unsigned, bool vote) {
  const auto& given = mlxs::emulated::exchange(&vote, sizeof(vote));
  unsigned all = 0;
  for (int lane = 0; lane < 32; ++lane)
    all |= static_cast<unsigned>(mlxs::emulated::from_lane<bool>(given, lane)) << lane;
  return all;
}
template <class T>
T __reduce_max_sync(unsigned, T value) {
  const auto& given = mlxs::emulated::exchange(&value, sizeof(T));
  for (int lane = 0; lane < 32; ++lane) value = std::max(value, mlxs::emulated::from_lane<T>(given, lane));
  return value;
}
template <class T>
T __reduce_min_sync(unsigned, T value) {
  const auto& given = mlxs::emulated::exchange(&value, sizeof(T));
  for (int lane = 0; lane < 32; ++lane) value = std::min(value, mlxs::emulated::from_lane<T>(given, lane));
  return value;
}
