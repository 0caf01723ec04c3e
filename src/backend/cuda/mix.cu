// The outputs of a row's experts, weighed and summed, of f32 and of bf16.
#include "backend/cuda/launch.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 256;

// A thread an output.
__global__ void mix_kernel(const float* x, const int* places, const float* weights, int used,
                           bool older, const __grid_constant__ Finish f) {
  const int columns = f.columns;
  const size_t row = blockIdx.y;
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (!older) await();
  constexpr int kKept = 8;
  int kept[kKept];
  float factors[kKept];
#pragma unroll
  for (int j = 0; j < kKept; ++j) {
    kept[j] = j < used ? places[row * used + j] : -1;
    factors[j] = j < used ? weights[row * used + j] : 0.0f;
  }
  const float gain = i < columns ? gain_of(f, i) : 1.0f;
  if (older) await();
  float sum = 0.0f;
  if (i < columns) {
    const float residual = residual_of(f, static_cast<int>(row), i);
#pragma unroll
    for (int j = 0; j < kKept; ++j) {
      if (kept[j] >= 0) sum += factors[j] * x[static_cast<size_t>(kept[j]) * columns + i];
    }
    for (int j = kKept; j < used; ++j) {
      const int place = places[row * used + j];
      if (place >= 0) sum += weights[row * used + j] * x[static_cast<size_t>(place) * columns + i];
    }
    sum = store(f, static_cast<int>(row), i, sum, {gain, residual});
  }
  if (f.squares.parts == nullptr) return;
  const float part = warp_sum(sum * sum);
  if (threadIdx.x % 32 == 0 && i < columns) f.squares.parts[row * f.squares.stride + i / 32] = part;
}

// The same of rows in bf16, a wide operand's order: a thread has eight columns, four side by side a piece.
__global__ __launch_bounds__(kThreads) void mix_operand_kernel(const __grid_constant__ Operand x,
                                                               const int* places, const float* weights,
                                                               int used, int columns, const float* residual,
                                                               float* y) {
  const size_t row = blockIdx.y;
  const int eight = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x),
            own = min(eight, columns / 8 - 1);
  const auto* from = static_cast<const uint4*>(x.data) + own;
  await();
  float sums[8] = {};
#pragma unroll 8
  for (int j = 0; j < used; ++j) {
    const int place = places[row * used + j];
    if (place < 0) continue;
    const float factor = weights[row * used + j];
    float v[8];
    open_pairs(stream16(from + static_cast<size_t>(place) * (x.stride / 8)), v);
#pragma unroll
    for (int i = 0; i < 8; ++i) sums[i] += factor * v[i];
  }
  // As they stand, each lane has one column of each of four eights, and the one four behind it: lanes
  // exchange.
  const uint4 low = widely({__float_as_uint(sums[0]), __float_as_uint(sums[2]), __float_as_uint(sums[4]),
                            __float_as_uint(sums[6])}),
              high = widely({__float_as_uint(sums[1]), __float_as_uint(sums[3]), __float_as_uint(sums[5]),
                             __float_as_uint(sums[7])});
  if (eight >= columns / 8) return;
  const size_t at = (row * columns + eight * 8) / 4;
  float4 first = {__uint_as_float(low.x), __uint_as_float(low.y), __uint_as_float(low.z),
                  __uint_as_float(low.w)},
         second = {__uint_as_float(high.x), __uint_as_float(high.y), __uint_as_float(high.z),
                   __uint_as_float(high.w)};
  const auto add = [&](float4& to, size_t where) {
    const float4 more = reinterpret_cast<const float4*>(residual)[where];
    to = {to.x + more.x, to.y + more.y, to.z + more.z, to.w + more.w};
  };
  if (residual != nullptr) {
    add(first, at);
    add(second, at + 1);
  }
  reinterpret_cast<float4*>(y)[at] = first;
  reinterpret_cast<float4*>(y)[at + 1] = second;
}

}  // namespace

int mix_rows(cudaStream_t stream, const float* x, const int* places, const float* weights, int used, int rows,
             bool older, const Finish& f) {
  launch_early(mix_kernel, dim3((f.columns + 127) / 128, rows), 128, 0, stream, x, places, weights, used,
               older, f);
  return (f.columns + 31) / 32;
}

void mix_operand_rows(cudaStream_t stream, const Operand& x, const int* places, const float* weights,
                      int used, int rows, int columns, const float* residual, float* y) {
  launch_early(mix_operand_kernel, dim3((columns / 8 + kThreads - 1) / kThreads, rows), kThreads, 0, stream,
               x, places, weights, used, columns, residual, y);
}

}  // namespace mlxs::cuda
