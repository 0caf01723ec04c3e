// Norms behind a block (Gemma): a row's norm is added to the stream, and what the next product reads of the
// stream, normed itself, is made beside it.
#include "backend/cuda/launch.cuh"
#include "backend/cuda/norm.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 256, kEights = 3;  // of columns, that a thread has at most

// A block a row, of which a thread has each kThreads-th eight columns.
__global__ __launch_bounds__(kThreads) void add_kernel(const float* x, int columns,
                                                       const __grid_constant__ Norm norm,
                                                       const float* residual, float* y,
                                                       const __grid_constant__ Norm next,
                                                       const __grid_constant__ Operand operand) {
  __shared__ float shares[2][kThreads / 32];
  const auto eight = [](int n) { return static_cast<int>(threadIdx.x) + n * kThreads; };
  const int eights = columns / 8;
  const size_t row = static_cast<size_t>(blockIdx.x) * (columns / 4);
  float4 gains[kEights][2] = {}, next_gains[kEights][2] = {}, v[kEights][2] = {}, added[kEights][2] = {};
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (eight(n) >= eights) continue;
      gains[n][i] = reinterpret_cast<const float4*>(norm.gain)[2 * eight(n) + i];
      next_gains[n][i] = reinterpret_cast<const float4*>(next.gain)[2 * eight(n) + i];
    }
  }
  await();
  float squares = 0.0f;
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (eight(n) >= eights) continue;
      v[n][i] = reinterpret_cast<const float4*>(x)[row + 2 * eight(n) + i];
      added[n][i] = reinterpret_cast<const float4*>(residual)[row + 2 * eight(n) + i];
      squares += squares_of(v[n][i]);
    }
  }
  const float factor = rsqrtf(sum_of_block(squares, shares[0]) / columns + norm.epsilon);
  squares = 0.0f;
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float4 value = scaled(v[n][i], gains[n][i], factor, norm.offset);
      v[n][i] = {value.x + added[n][i].x, value.y + added[n][i].y, value.z + added[n][i].z,
                 value.w + added[n][i].w};
      if (eight(n) < eights) reinterpret_cast<float4*>(y)[row + 2 * eight(n) + i] = v[n][i];
      squares += squares_of(v[n][i]);
    }
  }
  const float next_factor = rsqrtf(sum_of_block(squares, shares[1]) / columns + next.epsilon);
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
    if (eight(n) >= operand.stride / 8) continue;
    const float4 low = scaled(v[n][0], next_gains[n][0], next_factor, next.offset),
                 high = scaled(v[n][1], next_gains[n][1], next_factor, next.offset);
    put_eight(operand, static_cast<int>(blockIdx.x), eight(n),
              {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w});
  }
}

}  // namespace

bool adds_to_operand(int columns, const Norm& norm, const Norm& next) {
  return !norm.layer && norm.bias == nullptr && !next.layer && next.bias == nullptr && columns % 8 == 0 &&
         operand_stride(columns) <= 8 * kThreads * kEights;
}

void add_to_operand(cudaStream_t stream, const float* x, int rows, int columns, const Norm& norm,
                    const float* residual, float* y, const Norm& next, const Operand& operand) {
  launch_early(add_kernel, dim3(rows), kThreads, 0, stream, x, columns, norm, residual, y, next, operand);
}

}  // namespace mlxs::cuda
