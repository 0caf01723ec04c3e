// More rows than thin() takes: tiles of weights are unpacked to bf16 in shared memory and multiplied on the
// tensor cores (mma.sync, by way of nvcuda::wmma), f32 sums. The inputs are split over blocks where the
// outputs alone would not fill the GPU.
#include <mma.h>

#include "backend/cuda/codes.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

namespace wmma = nvcuda::wmma;

constexpr int kOut = 64;    // outputs of a tile
constexpr int kDepth = 64;  // inputs of a tile
constexpr int kPad = 8;     // elements behind a row, so that rows start in different banks
constexpr int kTile = 64;   // rows of a tile
constexpr int kThreads = 128;

// Warps stand kWarpRows × kWarpOuts over a tile of kTile rows and kOut outputs.
template <Codes kCodes>
__global__ __launch_bounds__(kThreads) void matmul_kernel(Rows w, Operand x, int rows, int first_column,
                                                          int units_per_split, float* sums, int stride) {
  constexpr int kWarpRows = 2, kWarpOuts = 4 / kWarpRows;
  constexpr int kFragRows = kTile / 16 / kWarpRows, kFragOuts = kOut / 16 / kWarpOuts;
  __shared__ __align__(16) __nv_bfloat16 inputs[kTile][kDepth + kPad];
  __shared__ __align__(16) __nv_bfloat16 weights[kOut][kDepth + kPad];
  const int first_out = static_cast<int>(blockIdx.x) * kOut, first_row = static_cast<int>(blockIdx.y) * kTile;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  const int warp_row = warp / kWarpOuts, warp_out = warp % kWarpOuts;
  wmma::fragment<wmma::accumulator, 16, 16, 16, float> acc[kFragRows][kFragOuts];
#pragma unroll
  for (int i = 0; i < kFragRows; ++i) {
#pragma unroll
    for (int j = 0; j < kFragOuts; ++j) wmma::fill_fragment(acc[i][j], 0.0f);
  }
  const int begin = static_cast<int>(blockIdx.z) * units_per_split * kDepth;
  const int end = min(begin + units_per_split * kDepth, w.padded);

  // The next tile's words are on their way while this one is multiplied.
  constexpr int kCodesEach = kOut * kDepth / 8 / kThreads;
  constexpr int kEightsEach = kTile * kDepth / 8 / kThreads;
  Eight<kCodes> codes[kCodesEach];
  float2 scales[kCodesEach];
  uint4 eights[kEightsEach];
  const auto fetch = [&](int depth) {
#pragma unroll
    for (int i = 0; i < kCodesEach; ++i) {
      const int at = thread + i * kThreads, out = at / (kDepth / 8);
      const int eight = min(depth / 8 + at % (kDepth / 8), w.padded / 8 - 1);
      const int row = min(first_out + out, w.rows - 1);
      codes[i].read(eight_at<kCodes>(w, row, eight));
      scales[i] = scale_at<kCodes>(w, row, eight);
    }
#pragma unroll
    for (int i = 0; i < kEightsEach; ++i) {
      const int at = thread + i * kThreads, row = first_row + at / (kDepth / 8);
      const int column = depth + at % (kDepth / 8) * 8;
      eights[i] = {};
      if (row < rows && column < end) {
        eights[i] = __ldg(reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(x.data) +
                                                         static_cast<size_t>(row) * x.stride + column));
      }
    }
  };
  fetch(begin);
  for (int depth = begin; depth < end; depth += kDepth) {
    __syncthreads();  // the tile before has been read
#pragma unroll
    for (int i = 0; i < kCodesEach; ++i) {
      const int at = thread + i * kThreads;
      unsigned pairs[4];  // in the operand's order
      scaled_pairs(codes[i], scales[i], pairs);
      *reinterpret_cast<uint4*>(&weights[at / (kDepth / 8)][at % (kDepth / 8) * 8]) = {pairs[0], pairs[1],
                                                                                       pairs[2], pairs[3]};
    }
#pragma unroll
    for (int i = 0; i < kEightsEach; ++i) {
      const int at = thread + i * kThreads;
      *reinterpret_cast<uint4*>(&inputs[at / (kDepth / 8)][at % (kDepth / 8) * 8]) = eights[i];
    }
    __syncthreads();
    if (depth + kDepth < end) fetch(depth + kDepth);
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::col_major> b[kFragOuts];
#pragma unroll
      for (int j = 0; j < kFragOuts; ++j)
        wmma::load_matrix_sync(b[j], &weights[(warp_out * kFragOuts + j) * 16][k], kDepth + kPad);
#pragma unroll
      for (int i = 0; i < kFragRows; ++i) {
        wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::row_major> a;
        wmma::load_matrix_sync(a, &inputs[(warp_row * kFragRows + i) * 16][k], kDepth + kPad);
#pragma unroll
        for (int j = 0; j < kFragOuts; ++j) wmma::mma_sync(acc[i][j], a, b[j], acc[i][j]);
      }
    }
  }
  // Through shared memory, 16 × 16 a warp at a time, because a tile may end within the matrix.
  __shared__ __align__(16) float patch[kThreads / 32][16][16];
  float* to = sums + static_cast<size_t>(blockIdx.z) * rows * stride;
  const int lane = thread % 32;
#pragma unroll
  for (int i = 0; i < kFragRows; ++i) {
#pragma unroll
    for (int j = 0; j < kFragOuts; ++j) {
      wmma::store_matrix_sync(&patch[warp][0][0], acc[i][j], 16, wmma::mem_row_major);
      __syncwarp();
      for (int e = lane; e < 256; e += 32) {
        const int row = first_row + (warp_row * kFragRows + i) * 16 + e / 16;
        const int out = first_out + (warp_out * kFragOuts + j) * 16 + e % 16;
        if (row < rows && out < w.rows)
          to[static_cast<size_t>(row) * stride + first_column + out] = patch[warp][e / 16][e % 16];
      }
      __syncwarp();
    }
  }
}

// Columns that a thread finishes; eight only of columns, and columns before, in whole eights.
template <int kEach>
__global__ __launch_bounds__(128) void finish_kernel(const float* __restrict__ sums, int splits, int rows,
                                                     const __grid_constant__ Finish f, int first,
                                                     int columns) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * kEach;
  const int row = static_cast<int>(blockIdx.y), stride = f.gated ? 2 * columns : columns, to = first + column;
  await();
  if (column >= columns) return;
  const auto read = [](const float* at, float(&v)[kEach]) {
    if constexpr (kEach == 8) {
      const float4 low = *reinterpret_cast<const float4*>(at),
                   high = *reinterpret_cast<const float4*>(at + 4);
      const float all[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = all[i];
    } else {
      v[0] = *at;
    }
  };
  const auto total = [&](int at, int output, float(&sum)[kEach]) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) sum[i] = f.bias != nullptr ? f.bias[output + i] : 0.0f;
    for (int s = 0; s < splits; ++s) {
      float part[kEach];
      read(sums + (static_cast<size_t>(s) * rows + row) * stride + at, part);
#pragma unroll
      for (int i = 0; i < kEach; ++i) sum[i] += part[i];
    }
  };
  float value[kEach];
  total(column, to, value);
  if (f.gated) {
    float up[kEach];
    total(column + columns, to + f.columns, up);
#pragma unroll
    for (int i = 0; i < kEach; ++i) value[i] = gate(value[i], up[i], f.act);
  } else {
#pragma unroll
    for (int i = 0; i < kEach; ++i) value[i] = activate(value[i], f.act);
  }
  if constexpr (kEach == 1) {
    store(f, row, to, value[0]);
  } else {
    const size_t at = static_cast<size_t>(row) * f.columns + to;
    float old[8] = {};
    if (f.residual != nullptr) read(f.residual + at, old);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (f.soft_cap > 0.0f) value[i] = f.soft_cap * tanhf(value[i] / f.soft_cap);
      value[i] += old[i];
    }
    if (f.y != nullptr) {
      auto* y = reinterpret_cast<float4*>(f.y + at);
      y[0] = make_float4(value[0], value[1], value[2], value[3]);
      y[1] = make_float4(value[4], value[5], value[6], value[7]);
    }
    if (f.operand.data == nullptr) return;
    const uint4 pairs = pack_operand(value);
    auto* operand = static_cast<__nv_bfloat16*>(f.operand.data) + static_cast<size_t>(row) * f.operand.stride;
    if (!f.operand.wide) {
      *reinterpret_cast<uint4*>(operand + to) = pairs;
    } else {
      const unsigned words[4] = {pairs.x, pairs.y, pairs.z, pairs.w};
#pragma unroll
      for (int i = 0; i < 4; ++i)
        *reinterpret_cast<unsigned*>(operand + operand_place(to + i, true)) = words[i];
    }
  }
}

template <Codes kCodes>
void start(cudaStream_t stream, const Rows& w, const Operand& x, int rows, int first_column, int splits,
           float* sums, int stride) {
  const int each = (w.padded / kDepth + splits - 1) / splits;
  const dim3 grid((w.rows + kOut - 1) / kOut, (rows + kTile - 1) / kTile, splits);
  launch_after(matmul_kernel<kCodes>, grid, kThreads, 0, stream, w, x, rows, first_column, each, sums,
               stride);
}

}  // namespace

int matmul_splits(int outputs, int inputs, int rows, int multiprocessors) {
  const int blocks = (outputs + kOut - 1) / kOut * ((rows + kTile - 1) / kTile);
  const int wanted = 4 * multiprocessors / blocks, possible = inputs / (2 * kDepth);
  return max(1, min(min(wanted, possible), 16));
}

void matmul(cudaStream_t stream, const Rows& w, const Operand& x, int rows, int first_column, int splits,
            float* sums, int stride) {
  switch (w.type) {
    case Codes::k4:
      return start<Codes::k4>(stream, w, x, rows, first_column, splits, sums, stride);
    case Codes::k8:
      return start<Codes::k8>(stream, w, x, rows, first_column, splits, sums, stride);
    case Codes::kBF16:
      return start<Codes::kBF16>(stream, w, x, rows, first_column, splits, sums, stride);
  }
}

void finish(cudaStream_t stream, const float* sums, int splits, int rows, const Finish& f, int first_column,
            int columns) {
  if (columns == 0) columns = f.columns;
  if (columns % 8 == 0 && first_column % 8 == 0 && f.columns % 8 == 0) {
    launch_early(finish_kernel<8>, dim3((columns / 8 + 127) / 128, rows), 128, 0, stream, sums, splits, rows,
                 f, first_column, columns);
  } else {
    launch_early(finish_kernel<1>, dim3((columns + 127) / 128, rows), 128, 0, stream, sums, splits, rows, f,
                 first_column, columns);
  }
}

}  // namespace mlxs::cuda
