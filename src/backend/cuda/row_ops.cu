// Ops that walk rows of activations: embedding, norms, gathering.
#include "backend/cuda/codes.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/norm.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxSegments = 8;

struct Segments {
  Rows rows[kMaxSegments];
  int first[kMaxSegments];
  int count;
};

// To y, or added to it.
template <Codes kCodes, bool kAdd>
__device__ void read_eight(const Rows& w, int row, int eight, float scale, float* y) {
  Eight<kCodes> codes;
  codes.read(eight_at<kCodes>(w, row, eight));
  const float2 s = scale_at<kCodes>(w, row, eight);
  float v[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = scale * fmaf(codes.code(i), s.x, s.y);
  if (w.columns % 8 == 0) {
    if (eight * 8 >= w.columns) return;
    auto* to = reinterpret_cast<float4*>(y) + 2 * eight;
    if constexpr (kAdd) {
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] += y[eight * 8 + i];
    }
    to[0] = {v[0], v[1], v[2], v[3]};
    to[1] = {v[4], v[5], v[6], v[7]};
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (eight * 8 + i < w.columns) y[eight * 8 + i] = v[i] + (kAdd ? y[eight * 8 + i] : 0.0f);
  }
}

template <bool kAdd>
__global__ void embed_kernel(const __grid_constant__ Segments segments, const int* tokens, float scale,
                             float* y) {
  await();
  const int token = tokens[blockIdx.x];
  int s = 0;
  while (s + 1 < segments.count && token >= segments.first[s + 1]) ++s;
  const Rows& w = segments.rows[s];
  const int row = token - segments.first[s];
  float* to = y + static_cast<size_t>(blockIdx.x) * w.columns;
  for (int eight = static_cast<int>(threadIdx.x); eight < w.padded / 8;
       eight += static_cast<int>(blockDim.x)) {
    switch (w.type) {
      case Codes::k4:
        read_eight<Codes::k4, kAdd>(w, row, eight, scale, to);
        break;
      case Codes::k8:
        read_eight<Codes::k8, kAdd>(w, row, eight, scale, to);
        break;
      case Codes::kF8:
        read_eight<Codes::kF8, kAdd>(w, row, eight, scale, to);
        break;
      case Codes::kBF16:
        read_eight<Codes::kBF16, kAdd>(w, row, eight, scale, to);
        break;
    }
  }
}

__device__ float block_sum(float value) {
  __shared__ float shares[kThreads / 32];
  __syncthreads();  // the last sum has been read
  return sum_of_block(value, shares);
}

// Of a row, what a thread keeps in registers: rows up to that long are read once, their gains before the rows
// are there.
constexpr int kKeptFours = 6;

__device__ bool keeps(int columns, const Norm& norm) {
  return !norm.layer && norm.bias == nullptr && columns % 8 == 0 && columns <= kThreads * 4 * kKeptFours;
}

// A block a row, in which a thread has each kThreads-th four columns.
__device__ void normalize_kept(const float* x, int columns, const Norm& norm, const float* residual,
                               float* y) {
  const auto four = [](int n) { return static_cast<int>(threadIdx.x) + n * kThreads; };
  const size_t row = static_cast<size_t>(blockIdx.x) * (columns / 4);
  float4 gains[kKeptFours] = {}, v[kKeptFours] = {}, added[kKeptFours] = {};
#pragma unroll
  for (int n = 0; n < kKeptFours; ++n) {
    if (four(n) < columns / 4) gains[n] = reinterpret_cast<const float4*>(norm.gain)[four(n)];
  }
  await();
#pragma unroll
  for (int n = 0; n < kKeptFours; ++n) {
    if (four(n) >= columns / 4) continue;
    v[n] = reinterpret_cast<const float4*>(x)[row + four(n)];
    if (residual != nullptr) added[n] = reinterpret_cast<const float4*>(residual)[row + four(n)];
  }
  float squares = 0.0f;
#pragma unroll
  for (int n = 0; n < kKeptFours; ++n) squares += squares_of(v[n]);
  const float factor = rsqrtf(block_sum(squares) / columns + norm.epsilon);
#pragma unroll
  for (int n = 0; n < kKeptFours; ++n) {
    if (four(n) >= columns / 4) continue;
    const float4 value = scaled(v[n], gains[n], factor, norm.offset);
    reinterpret_cast<float4*>(y)[row + four(n)] = {value.x + added[n].x, value.y + added[n].y,
                                                   value.z + added[n].z, value.w + added[n].w};
  }
}

// The same to an operand; a thread has each kThreads-th eight columns.
__device__ void operand_kept(const float* x, int columns, const Norm& norm, const Operand& y) {
  constexpr int kEights = kKeptFours / 2;
  const auto eight = [](int n) { return static_cast<int>(threadIdx.x) + n * kThreads; };
  const auto* row = reinterpret_cast<const float4*>(x + static_cast<size_t>(blockIdx.x) * columns);
  float4 gains[kEights][2] = {}, v[kEights][2] = {};
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (eight(n) < columns / 8) gains[n][i] = reinterpret_cast<const float4*>(norm.gain)[2 * eight(n) + i];
    }
  }
  await();
  float squares = 0.0f;
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (eight(n) < columns / 8) v[n][i] = row[2 * eight(n) + i];
      squares += squares_of(v[n][i]);
    }
  }
  const float factor = rsqrtf(block_sum(squares) / columns + norm.epsilon);
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
    if (eight(n) >= y.stride / 8) continue;
    const float4 low = scaled(v[n][0], gains[n][0], factor, norm.offset),
                 high = scaled(v[n][1], gains[n][1], factor, norm.offset);
    put_eight(y, static_cast<int>(blockIdx.x), eight(n),
              {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w});
  }
}

__global__ __launch_bounds__(kThreads) void norm_kernel(const float* x, int columns,
                                                        const __grid_constant__ Norm norm,
                                                        const float* residual, float* y) {
  if (keeps(columns, norm)) return normalize_kept(x, columns, norm, residual, y);
  await();
  const size_t row = static_cast<size_t>(blockIdx.x) * columns;
  float mean = 0.0f;
  if (norm.layer) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < columns; i += kThreads) sum += x[row + i];
    mean = block_sum(sum) / columns;
  }
  float squares = 0.0f;
  for (int i = threadIdx.x; i < columns; i += kThreads) {
    const float value = x[row + i] - mean;
    squares += value * value;
  }
  const float factor = rsqrtf(block_sum(squares) / columns + norm.epsilon);
  for (int i = threadIdx.x; i < columns; i += kThreads) {
    float value = (x[row + i] - mean) * factor * (norm.gain[i] + norm.offset);
    if (norm.bias != nullptr) value += norm.bias[i];
    if (residual != nullptr) value += residual[row + i];
    y[row + i] = value;
  }
}

// A block a row.
__global__ __launch_bounds__(kThreads) void operand_kernel(const float* x, int columns,
                                                           const __grid_constant__ Norm norm, bool normalize,
                                                           const __grid_constant__ Operand y) {
  if (normalize && keeps(columns, norm)) return operand_kept(x, columns, norm, y);
  await();
  const float* row = x + static_cast<size_t>(blockIdx.x) * columns;
  float mean = 0.0f, factor = 1.0f;
  if (normalize) {
    if (norm.layer) {
      float sum = 0.0f;
      for (int i = threadIdx.x; i < columns; i += kThreads) sum += row[i];
      mean = block_sum(sum) / columns;
    }
    float squares = 0.0f;
    for (int i = threadIdx.x; i < columns; i += kThreads) squares += (row[i] - mean) * (row[i] - mean);
    factor = rsqrtf(block_sum(squares) / columns + norm.epsilon);
  }
  for (int eight = threadIdx.x; eight < y.stride / 8; eight += kThreads) {
    float values[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int column = eight * 8 + i;
      values[i] = 0.0f;
      if (column >= columns) continue;
      values[i] = row[column];
      if (!normalize) continue;
      values[i] = (values[i] - mean) * factor * (norm.gain[column] + norm.offset);
      if (norm.bias != nullptr) values[i] += norm.bias[column];
    }
    put_eight(y, static_cast<int>(blockIdx.x), eight, values);
  }
}

// Many rows at once, to a wide operand: kWarps warps share a row, each thread has each 32 · kWarps-th eight
// columns.
template <int kWarps, int kEights>
__global__ __launch_bounds__(128) void operand_rows_kernel(const float* x, int rows, int columns,
                                                           const __grid_constant__ Norm norm, bool normalize,
                                                           const __grid_constant__ Operand y) {
  constexpr int kTeam = 32 * kWarps, kRows = 128 / kTeam;
  static_assert(kWarps == 1 || kRows == 1);
  const int own = threadIdx.x % kTeam;
  const int row = static_cast<int>(blockIdx.x) * kRows + static_cast<int>(threadIdx.x) / kTeam;
  const auto* gains = reinterpret_cast<const float4*>(norm.gain);
  await();
  if (row >= rows) return;
  const auto* from = reinterpret_cast<const float4*>(x + static_cast<size_t>(row) * columns);
  float4 v[kEights][2] = {};
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
    const int eight = own + kTeam * n;
    if (eight >= columns / 8) continue;
    v[n][0] = from[2 * eight];
    v[n][1] = from[2 * eight + 1];
  }
  float factor = 1.0f;
  if (normalize) {
    float squares = 0.0f;
#pragma unroll
    for (int n = 0; n < kEights; ++n) squares += squares_of(v[n][0]) + squares_of(v[n][1]);
    squares = warp_sum(squares);
    if constexpr (kWarps > 1) {
      __shared__ float shares[kWarps];
      if (own % 32 == 0) shares[own / 32] = squares;
      __syncthreads();
      squares = 0.0f;
#pragma unroll
      for (int i = 0; i < kWarps; ++i) squares += shares[i];
    }
    factor = rsqrtf(squares / columns + norm.epsilon);
  }
  auto* to =
      reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(y.data) + static_cast<size_t>(row) * y.stride);
#pragma unroll
  for (int n = 0; n < kEights; ++n) {
    const int eight = own + kTeam * n;
    if (normalize && eight < columns / 8) {
#pragma unroll
      for (int i = 0; i < 2; ++i) v[n][i] = scaled(v[n][i], gains[2 * eight + i], factor, norm.offset);
    }
    const float4 low = v[n][0], high = v[n][1];
    const uint4 words = widely(pack_operand({low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}));
    if (eight < y.stride / 8) to[eight] = words;
  }
}

__global__ void widen_kernel(const __grid_constant__ Operand x, int columns, float* y) {
  await();
  const auto* from = static_cast<const __nv_bfloat16*>(x.data) + static_cast<size_t>(blockIdx.x) * x.stride;
  float* to = y + static_cast<size_t>(blockIdx.x) * columns;
  for (int i = threadIdx.x; i < columns; i += kThreads)
    to[i] = __bfloat162float(from[operand_place(i, x.wide)]);
}

__global__ void gather_kernel(const float* x, const int* index, int columns, float* y) {
  await();
  const size_t from = static_cast<size_t>(index[blockIdx.x]) * columns;
  const size_t to = static_cast<size_t>(blockIdx.x) * columns;
  constexpr int kOnce = 4;  // on their way together
  for (int base = threadIdx.x; base < columns; base += kOnce * kThreads) {
    float values[kOnce];
#pragma unroll
    for (int n = 0; n < kOnce; ++n) values[n] = x[from + min(base + n * kThreads, columns - 1)];
#pragma unroll
    for (int n = 0; n < kOnce; ++n) {
      if (base + n * kThreads < columns) y[to + base + n * kThreads] = values[n];
    }
  }
}

__global__ void copy_columns_kernel(const float* x, int x_columns, int x_step, float* y,
                                    int y_columns, int y_step, int runs, int columns) {
  const float* from = x + static_cast<size_t>(blockIdx.x) * x_columns;
  float* to = y + static_cast<size_t>(blockIdx.x) * y_columns;
  for (int i = blockIdx.y * kThreads + threadIdx.x; i < runs * columns; i += gridDim.y * kThreads) {
    const int run = i / columns, column = i % columns;
    to[run * y_step + column] = __ldg(from + run * x_step + column);  // the kernels before have ended
  }
}

}  // namespace

void embed(cudaStream_t stream, const Rows* segments, const int* first_rows, int num_segments,
           const int* tokens, int rows, float scale, bool add, float* y) {
  Segments all{};
  all.count = min(num_segments, kMaxSegments);
  for (int i = 0; i < all.count; ++i) {
    all.rows[i] = segments[i];
    all.first[i] = first_rows[i];
  }
  launch_early(add ? embed_kernel<true> : embed_kernel<false>, dim3(rows), 128, 0, stream, all, tokens, scale,
               y);
}

void normalize(cudaStream_t stream, const float* x, int rows, int columns, const Norm& norm,
               const float* residual, float* y) {
  launch_early(norm_kernel, dim3(rows), kThreads, 0, stream, x, columns, norm, residual, y);
}

void normalize_operand(cudaStream_t stream, const float* x, int rows, int columns, const Norm* norm,
                       const Operand& y) {
  const bool in_eights = columns % 8 == 0 && (norm == nullptr || (!norm->layer && norm->bias == nullptr));
  if (rows >= kManyRows && y.wide && in_eights && y.stride <= 5 * 1024) {
    const auto kernel = y.stride <= 512        ? operand_rows_kernel<1, 2>
                        : y.stride <= 1024     ? operand_rows_kernel<1, 4>
                        : y.stride <= 2 * 1024 ? operand_rows_kernel<4, 2>
                        : y.stride <= 3 * 1024 ? operand_rows_kernel<4, 3>
                        : y.stride <= 4 * 1024 ? operand_rows_kernel<4, 4>
                                               : operand_rows_kernel<4, 5>;
    return launch_early(kernel, dim3(y.stride <= 1024 ? (rows + 3) / 4 : rows), 128, 0, stream, x, rows,
                        columns, norm != nullptr ? *norm : Norm{}, norm != nullptr, y);
  }
  launch_early(operand_kernel, dim3(rows), kThreads, 0, stream, x, columns, norm != nullptr ? *norm : Norm{},
               norm != nullptr, y);
}

void widen_operand(cudaStream_t stream, const Operand& x, int rows, int columns, float* y) {
  launch_early(widen_kernel, dim3(rows), kThreads, 0, stream, x, columns, y);
}

void gather_rows(cudaStream_t stream, const float* x, const int* index, int rows, int columns, float* y) {
  launch_early(gather_kernel, dim3(rows), kThreads, 0, stream, x, index, columns, y);
}

void copy_columns(cudaStream_t stream, const float* x, int x_columns, int x_step, float* y, int y_columns,
                  int y_step, int rows, int runs, int columns) {
  launch_after(copy_columns_kernel, dim3(rows, (runs * columns + 4 * kThreads - 1) / (4 * kThreads)),
               kThreads, 0, stream, x, x_columns, x_step, y, y_columns, y_step, runs, columns);
}

}  // namespace mlxs::cuda
