// What follows a product, as device functions that the kernels share.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "backend/cuda/kernels.h"

namespace mlxs::cuda {

__device__ inline float activate(float x, Act act) {
  switch (act) {
    case Act::kSilu:
      return x / (1.0f + __expf(-x));
    case Act::kGelu:
      return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case Act::kGeluTanh:
      return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case Act::kNone:
    case Act::kSwigluClamped:  // needs both factors: gate()
      break;
  }
  return x;
}

__device__ inline float gate(float g, float up, Act act) {
  if (act != Act::kSwigluClamped) return activate(g, act) * up;
  g = fminf(g, 7.0f);
  up = fminf(fmaxf(up, -7.0f), 7.0f);
  return g / (1.0f + __expf(-1.702f * g)) * (up + 1.0f);
}

// Where a column of an operand stands in its row (kernels.h, Operand).
__device__ inline int operand_place(int column, bool wide) {
  const int i = column & 7;
  if (!wide) return (column & ~7) | ((i & 3) << 1) | (i >> 2);
  const int t = column >> 3 & 3, piece = column >> 5 & 1;
  return (column & ~63) | (2 * piece + (i & 3) / 2) * 16 | (i & 1) * 8 | 2 * t | i >> 2;
}

__device__ inline void put_operand(const Operand& to, int row, int column, float value) {
  static_cast<__nv_bfloat16*>(
      to.data)[static_cast<size_t>(row) * to.stride + operand_place(column, to.wide)] =
      __float2bfloat16(value);
}

// What an output's end reads, which may be read before its sum is there.
struct Ahead {
  float gain = 1.0f, residual = 0.0f;
};
__device__ inline float gain_of(const Finish& f, int column) {
  return f.gain != nullptr ? __ldg(f.gain + column) + f.gain_offset : 1.0f;
}
__device__ inline float residual_of(const Finish& f, int row, int column) {
  return f.residual != nullptr ? f.residual[static_cast<size_t>(row) * f.columns + column] : 0.0f;
}

// Behind the bias and the gate; returns the value that y has.
__device__ inline float store(const Finish& f, int row, int column, float value, const Ahead& ahead) {
  if (f.soft_cap > 0.0f) value = f.soft_cap * tanhf(value / f.soft_cap);
  value += ahead.residual;
  if (f.y != nullptr) f.y[static_cast<size_t>(row) * f.columns + column] = value;
  if (f.operand.data != nullptr) put_operand(f.operand, row, column, value * ahead.gain);
  return value;
}
__device__ inline float store(const Finish& f, int row, int column, float value) {
  return store(f, row, column, value, {gain_of(f, column), residual_of(f, row, column)});
}

__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// Whole blocks, each having left something for the last of them: whether this is that. counter: zero before
// the first and after the last.
__device__ inline bool is_last_block(int* counter, int blocks) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = atomicAdd(counter, 1) == blocks - 1;
    if (is_last) *counter = 0;
  }
  __syncthreads();
  if (is_last) __threadfence();
  return is_last;
}

}  // namespace mlxs::cuda
