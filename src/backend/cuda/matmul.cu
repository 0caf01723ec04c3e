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
    case Codes::kF8:
      return start<Codes::kF8>(stream, w, x, rows, first_column, splits, sums, stride);
    case Codes::kBF16:
      return start<Codes::kBF16>(stream, w, x, rows, first_column, splits, sums, stride);
  }
}

}  // namespace mlxs::cuda
