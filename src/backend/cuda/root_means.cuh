// Rows that are normed by who reads them (kernels.h, RootMeans): sums of their squares, and what those make of
// products.
#pragma once

#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/machine.cuh"

namespace mlxs::cuda {

// Of sixteen lanes side by side, of which all or none of a warp's call.
__device__ inline float sum_of_sixteen(float value) {
#pragma unroll
  for (int step = 8; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// Floats of a row's squares in shared memory.
__host__ __device__ inline int squares_row(const RootMeans& m) { return (m.count + 3) / 4 * 4; }

// Whole blocks: the squares of rows first … on their way to shared memory, with the copies that are committed
// next.
__device__ inline void fetch_squares(const RootMeans& m, int first, int rows, float* to) {
  const int fours = squares_row(m) / 4;
  for (int at = static_cast<int>(threadIdx.x); at < rows * fours; at += static_cast<int>(blockDim.x)) {
    const int row = at / fours, four = at % fours * 4;
    copy16(to + row * (4 * fours) + four, m.squares + static_cast<size_t>(first + row) * m.stride + four);
  }
}
// Of four parts, those that there are.
__device__ inline float sum_of_parts(const float4& four, int left) {
  return (left > 0 ? four.x : 0.0f) + (left > 1 ? four.y : 0.0f) + (left > 2 ? four.z : 0.0f) +
         (left > 3 ? four.w : 0.0f);
}
// By sixteen lanes, which all get it.
__device__ inline float factor_of(const RootMeans& m, const float* squares) {
  float sum = 0.0f;
  for (int i = static_cast<int>(threadIdx.x % 16) * 4; i < m.count; i += 64)
    sum += sum_of_parts(*reinterpret_cast<const float4*>(squares + i), m.count - i);
  return rsqrtf(sum_of_sixteen(sum) / m.columns + m.epsilon);
}

// Whole blocks: the factors of rows first …, there behind a barrier.
template <int kRows>
__device__ void read_factors(const RootMeans& m, int first, int rows, float (&factors)[kRows]) {
  constexpr int kOnce = 8;  // rows, whose loads are on their way together
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int base = warp; base < rows; base += kOnce * warps) {
    float sums[kOnce] = {};
    for (int i = 4 * lane; i < m.count; i += 128) {
      float4 fours[kOnce];
#pragma unroll
      for (int n = 0; n < kOnce; ++n) {
        const int row = first + min(base + n * warps, rows - 1);
        fours[n] = *reinterpret_cast<const float4*>(m.squares + static_cast<size_t>(row) * m.stride + i);
      }
#pragma unroll
      for (int n = 0; n < kOnce; ++n) sums[n] += sum_of_parts(fours[n], m.count - i);
    }
#pragma unroll
    for (int n = 0; n < kOnce; ++n) {
      const float sum = warp_sum(sums[n]);
      if (lane == 0 && base + n * warps < rows)
        factors[base + n * warps] = rsqrtf(sum / m.columns + m.epsilon);
    }
  }
}

}  // namespace mlxs::cuda
