// What follows a product whose sums lie in memory: those of several blocks added, bias, gate or activation,
// residual. Of many rows' gates and ups in one go, eight columns a thread, whole sectors read and written.
#include "backend/cuda/launch.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

// Columns that a thread finishes; eight only of columns, and columns before, in whole eights.
template <int kEach>
__global__ __launch_bounds__(128) void finish_kernel(const float* sums, int splits, int rows,
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

// Gates and ups, rows after rows of 2 · columns of sums, to a wide operand, and to y if it is not null. A
// thread has kItems eights of columns; columns are whole pieces of 32.
constexpr int kGateThreads = 256, kItems = 2;

__device__ void stream_eight(const __nv_bfloat16* from, float (&v)[8]) { open_pairs(stream16(from), v); }
__device__ void stream_eight(const float* from, float (&v)[8]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint4 four = stream16(from + 4 * i);
    v[4 * i] = __uint_as_float(four.x);
    v[4 * i + 1] = __uint_as_float(four.y);
    v[4 * i + 2] = __uint_as_float(four.z);
    v[4 * i + 3] = __uint_as_float(four.w);
  }
}

template <class Sum>
__global__ __launch_bounds__(kGateThreads) void gate_kernel(const Sum* sums, int rows,
                                                            const __grid_constant__ Finish f, int first,
                                                            int columns) {
  const int eights = columns / 8, all = rows * eights;
  const int from = static_cast<int>(blockIdx.x) * (kGateThreads * kItems) + static_cast<int>(threadIdx.x);
  await();
  int row[kItems], eight[kItems];
  float gates[kItems][8], ups[kItems][8];
#pragma unroll
  for (int n = 0; n < kItems; ++n) {
    const int at = min(from + n * kGateThreads, all - 1);
    row[n] = at / eights;
    eight[n] = at % eights;
    const Sum* own = sums + static_cast<size_t>(row[n]) * (2 * columns) + eight[n] * 8;
    stream_eight(own, gates[n]);
    stream_eight(own + columns, ups[n]);
  }
#pragma unroll
  for (int n = 0; n < kItems; ++n) {
    const bool live = from + n * kGateThreads < all;
    if (f.act == Act::kSilu) {  // as gate() does it, with the quick division
#pragma unroll
      for (int i = 0; i < 8; ++i)
        gates[n][i] = __fdividef(gates[n][i], 1.0f + __expf(-gates[n][i])) * ups[n][i];
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) gates[n][i] = gate(gates[n][i], ups[n][i], f.act);
    }
    const uint4 words = widely(pack_operand(gates[n]));
    if (!live) continue;
    const int column = first + eight[n] * 8;
    *reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(f.operand.data) +
                              static_cast<size_t>(row[n]) * f.operand.stride + column) = words;
    if (f.y == nullptr) continue;
    auto* y = reinterpret_cast<float4*>(f.y + static_cast<size_t>(row[n]) * f.columns + column);
    y[0] = make_float4(gates[n][0], gates[n][1], gates[n][2], gates[n][3]);
    y[1] = make_float4(gates[n][4], gates[n][5], gates[n][6], gates[n][7]);
  }
}

template <class Sum>
void start_gates(cudaStream_t stream, const Sum* sums, int rows, const Finish& f, int first, int columns) {
  const int eights = rows * (columns / 8), each = kGateThreads * kItems;
  launch_early(gate_kernel<Sum>, dim3((eights + each - 1) / each), kGateThreads, 0, stream, sums, rows, f,
               first, columns);
}

constexpr int kMostGridY = 65535;

// What follows its first rows.
Finish behind(Finish f, int rows) {
  const auto skipped = static_cast<size_t>(rows);
  if (f.residual != nullptr) f.residual += skipped * f.columns;
  if (f.y != nullptr) f.y += skipped * f.columns;
  if (f.operand.data != nullptr)
    f.operand.data = static_cast<__nv_bfloat16*>(f.operand.data) + skipped * f.operand.stride;
  return f;
}

}  // namespace

bool gates_rows(const Finish& f, int first_column, int columns) {
  return f.gated && f.operand.wide && f.operand.data != nullptr && f.bias == nullptr &&
         f.residual == nullptr && f.soft_cap == 0 && columns % 32 == 0 && first_column % 32 == 0 &&
         f.columns % 8 == 0;
}

void gate_rows(cudaStream_t stream, const void* sums, int rows, const Finish& f, int first_column,
               int columns) {
  start_gates(stream, static_cast<const __nv_bfloat16*>(sums), rows, f, first_column, columns);
}

void finish(cudaStream_t stream, const float* sums, int splits, int rows, const Finish& f, int first_column,
            int columns) {
  if (columns == 0) columns = f.columns;
  if (splits == 1 && rows >= kManyRows && gates_rows(f, first_column, columns))
    return start_gates(stream, sums, rows, f, first_column, columns);
  if (rows > kMostGridY && splits == 1) {  // those of a step's experts may be as many
    finish(stream, sums, 1, kMostGridY, f, first_column, columns);
    return finish(stream, sums + static_cast<size_t>(kMostGridY) * columns * (f.gated ? 2 : 1), 1,
                  rows - kMostGridY, behind(f, kMostGridY), first_column, columns);
  }
  if (columns % 8 == 0 && first_column % 8 == 0 && f.columns % 8 == 0) {
    launch_early(finish_kernel<8>, dim3((columns / 8 + 127) / 128, rows), 128, 0, stream, sums, splits, rows,
                 f, first_column, columns);
  } else {
    launch_early(finish_kernel<1>, dim3((columns + 127) / 128, rows), 128, 0, stream, sums, splits, rows, f,
                 first_column, columns);
  }
}

}  // namespace mlxs::cuda
