// One to four rows: bound by the bytes of the weights, which are read once. A block has four outputs and
// four warps, each warp a quarter of the inputs; no shared copy of x, which the blocks of a multiprocessor
// find in its L1.
#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/rows.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kOutputs = 4, kWarps = 4;

template <Codes kCodes, int kRows>
__global__ __launch_bounds__(kWarps * 32) void matvec_kernel(Rows w, const float* __restrict__ x,
                                                             int first_column, Finish f) {
  const int first = static_cast<int>(blockIdx.x) * kOutputs;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float sums[kOutputs][kRows] = {};
  const int chunks = w.padded / 16;
  for (int chunk = static_cast<int>(threadIdx.x); chunk < chunks; chunk += kWarps * 32) {
    Chunk<kCodes> codes[kOutputs];
    float2 scales[kOutputs];
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) {
      const size_t row = min(first + o, w.rows - 1);
      codes[o].load(w.codes, row, w.padded, chunk);
      scales[o] = scale_of<kCodes>(w, row, chunk);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float values[16];
      const float* from = x + static_cast<size_t>(r) * w.columns + chunk * 16;
      if (w.columns % 16 == 0 && chunk * 16 + 16 <= w.columns) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float4 four = __ldg(reinterpret_cast<const float4*>(from) + i);
          values[4 * i] = four.x;
          values[4 * i + 1] = four.y;
          values[4 * i + 2] = four.z;
          values[4 * i + 3] = four.w;
        }
      } else {
#pragma unroll
        for (int i = 0; i < 16; ++i) values[i] = chunk * 16 + i < w.columns ? from[i] : 0.0f;
      }
      float total = 0.0f;
      if constexpr (kCodes != Codes::kBF16) {
#pragma unroll
        for (int i = 0; i < 16; ++i) total += values[i];
      }
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) {
        float dot = 0.0f;
#pragma unroll
        for (int i = 0; i < 16; ++i) dot = fmaf(codes[o].code(i), values[i], dot);
        sums[o][r] += scales[o].x * dot + scales[o].y * total;
      }
    }
  }
  __shared__ float shares[kWarps][kOutputs * kRows];
#pragma unroll
  for (int o = 0; o < kOutputs; ++o) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float sum = warp_sum(sums[o][r]);
      if (lane == 0) shares[warp][o * kRows + r] = sum;
    }
  }
  __syncthreads();
  if (threadIdx.x >= kOutputs * kRows) return;
  const int o = static_cast<int>(threadIdx.x) / kRows, r = static_cast<int>(threadIdx.x) % kRows;
  if (first + o >= w.rows) return;
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) sum += shares[i][threadIdx.x];
  const int column = first_column + first + o;
  if (f.bias != nullptr) sum += f.bias[column];
  store(f, r, column, activate(sum, f.act));
}

template <Codes kCodes>
void launch(cudaStream_t stream, const Rows& w, const float* x, int rows, int first_column, const Finish& f) {
  const int blocks = (w.rows + kOutputs - 1) / kOutputs, threads = kWarps * 32;
  switch (rows) {
    case 1:
      matvec_kernel<kCodes, 1><<<blocks, threads, 0, stream>>>(w, x, first_column, f);
      break;
    case 2:
      matvec_kernel<kCodes, 2><<<blocks, threads, 0, stream>>>(w, x, first_column, f);
      break;
    case 3:
      matvec_kernel<kCodes, 3><<<blocks, threads, 0, stream>>>(w, x, first_column, f);
      break;
    default:
      matvec_kernel<kCodes, 4><<<blocks, threads, 0, stream>>>(w, x, first_column, f);
      break;
  }
}

}  // namespace

void matvec(cudaStream_t stream, const Rows& w, const float* x, int rows, int first_column,
            const Finish& finish) {
  switch (w.type) {
    case Codes::k4:
      return launch<Codes::k4>(stream, w, x, rows, first_column, finish);
    case Codes::k8:
      return launch<Codes::k8>(stream, w, x, rows, first_column, finish);
    case Codes::kBF16:
      return launch<Codes::kBF16>(stream, w, x, rows, first_column, finish);
  }
}

}  // namespace mlxs::cuda
