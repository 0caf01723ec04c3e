// More rows than thin() takes: tiles of weights are unpacked to bf16 in shared memory and multiplied on the
// tensor cores (mma.sync, by way of nvcuda::wmma), f32 sums. The inputs are split over blocks where the
// outputs alone would not fill the GPU.
#include <mma.h>

#include "backend/cuda/operand.cuh"
#include "backend/cuda/rows.cuh"

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
                                                          int chunks_per_split, float* sums, int stride) {
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
  const int begin = static_cast<int>(blockIdx.z) * chunks_per_split * 16;
  const int end = min(begin + chunks_per_split * 16, w.padded);

  // The next tile's words are on their way while this one is multiplied.
  constexpr int kChunksEach = kOut * (kDepth / 16) / kThreads;
  constexpr int kEightsEach = kTile * kDepth / 8 / kThreads;
  Chunk<kCodes> codes[kChunksEach];
  float2 scales[kChunksEach];
  uint4 eights[kEightsEach];
  const auto fetch = [&](int depth) {
#pragma unroll
    for (int i = 0; i < kChunksEach; ++i) {
      const int at = thread + i * kThreads, out = at / (kDepth / 16);
      const int chunk = min(depth / 16 + at % (kDepth / 16), w.padded / 16 - 1);
      const size_t row = min(first_out + out, w.rows - 1);
      codes[i].load(w.codes, row, w.padded, chunk);
      scales[i] = scale_of<kCodes>(w, row, chunk);
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
    for (int i = 0; i < kChunksEach; ++i) {
      const int at = thread + i * kThreads;
      auto* to = reinterpret_cast<__nv_bfloat162*>(&weights[at / (kDepth / 16)][at % (kDepth / 16) * 16]);
#pragma unroll
      for (int k = 0; k < 8; ++k) {  // in the operand's order
        const int first = k / 4 * 8 + k % 4;
        to[k] = __floats2bfloat162_rn(fmaf(codes[i].code(first), scales[i].x, scales[i].y),
                                      fmaf(codes[i].code(first + 4), scales[i].x, scales[i].y));
      }
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

__global__ void finish_kernel(const float* __restrict__ sums, int splits, int rows, Finish f) {
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int row = static_cast<int>(blockIdx.y);
  if (column >= f.columns) return;
  const int stride = f.gated ? 2 * f.columns : f.columns;
  const auto total = [&](int at) {
    float sum = f.bias != nullptr ? f.bias[at] : 0.0f;
    for (int s = 0; s < splits; ++s) sum += sums[(static_cast<size_t>(s) * rows + row) * stride + at];
    return sum;
  };
  store(f, row, column,
        f.gated ? gate(total(column), total(column + f.columns), f.act) : activate(total(column), f.act));
}

template <Codes kCodes>
void launch(cudaStream_t stream, const Rows& w, const Operand& x, int rows, int first_column, int splits,
            float* sums, int stride) {
  const int chunks = w.padded / 16;
  // Whole tiles a split, so that only the last one is ragged.
  const int each = ((chunks + splits - 1) / splits + kDepth / 16 - 1) / (kDepth / 16) * (kDepth / 16);
  const dim3 grid((w.rows + kOut - 1) / kOut, (rows + kTile - 1) / kTile, splits);
  matmul_kernel<kCodes><<<grid, kThreads, 0, stream>>>(w, x, rows, first_column, each, sums, stride);
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
      return launch<Codes::k4>(stream, w, x, rows, first_column, splits, sums, stride);
    case Codes::k8:
      return launch<Codes::k8>(stream, w, x, rows, first_column, splits, sums, stride);
    case Codes::kBF16:
      return launch<Codes::kBF16>(stream, w, x, rows, first_column, splits, sums, stride);
  }
}

void finish(cudaStream_t stream, const float* sums, int splits, int rows, const Finish& f) {
  const dim3 grid((f.columns + 255) / 256, rows);
  finish_kernel<<<grid, 256, 0, stream>>>(sums, splits, rows, f);
}

}  // namespace mlxs::cuda
