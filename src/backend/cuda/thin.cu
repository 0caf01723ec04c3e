// Products of a few rows: bound by the bytes of the weights, which are read once for all rows. A block has 16
// outputs; its warps share the inputs out, 64 columns at a time, straight from memory into the registers that
// the tensor cores take (mma.sync, bf16 operands, f32 sums): no weight passes through shared memory. Codes of
// 4 and 8 bits are exact in bf16, so groups of 32 and more are scaled behind the product, in f32; the sum of
// the inputs that a group's bias multiplies comes from a product with ones.
#include "backend/cuda/codes.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kOutputs = 16, kMostWarps = 16;

struct Thin {
  Rows w;
  Operand x;
  int rows;
  int first_column;
  ExpertRows experts;  // table == nullptr: w alone, all rows
  Finish f;
};

// kTiles: tiles of eight rows.
template <Codes kCodes, Scaling kScaling, int kTiles>
__global__ __launch_bounds__(kMostWarps * 32) void thin_kernel(const Thin a) {
  constexpr bool kExact = kScaling == Scaling::kUnits || kScaling == Scaling::kHalves;
  constexpr int kUnroll = kTiles > 2 ? 1 : kTiles == 2 || kCodes != Codes::k4 ? 2 : 4;
  __shared__ float shares[kMostWarps][kOutputs][kTiles * 8 + 1];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int g = lane / 4, t = lane % 4;

  const void* codes = a.w.codes;
  const void* scales = a.w.scales;
  const float* bias = a.f.bias;
  int begin = 0, rows = a.rows;
  if (a.experts.table != nullptr) {
    if (static_cast<int>(blockIdx.y) >= *a.experts.num_active) return;
    const int expert = a.experts.active[blockIdx.y];
    const ExpertWeight& own = a.experts.table[expert];
    codes = own.codes;
    scales = own.scales;
    bias = own.bias;
    begin = a.experts.first[expert];
    rows = a.experts.first[expert + 1] - begin;
  }
  // The tile's rows g and g + 8: outputs, or a gate and its up.
  const int first = static_cast<int>(blockIdx.x) * (a.f.gated ? kOutputs / 2 : kOutputs);
  const int last = a.f.gated ? a.w.rows / 2 - 1 : a.w.rows - 1;
  const int out[2] = {min(first + g, last),
                      a.f.gated ? min(first + g, last) + a.w.rows / 2 : min(first + g + 8, last)};
  const int groups = groups_of(a.w.padded, a.w.group_shift);
  const char* code_rows[2];
  const __half2* scale_rows[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    code_rows[r] = static_cast<const char*>(codes) + code_row_bytes(kCodes, a.w.padded) * out[r];
    scale_rows[r] = static_cast<const __half2*>(scales) + static_cast<size_t>(groups) * out[r];
  }
  const int units = a.x.stride / 64;
  // Columns of piece 0 and 1 of a unit that this lane multiplies.
  const auto column = [&](int unit, int piece) {
    return unit * 64 + (kScaling == Scaling::kHalves ? piece * 32 + t * 8 : t * 16 + piece * 8);
  };

  for (int from = 0; from < rows; from += kTiles * 8) {
    const uint4* x_rows[kTiles];
    bool some[kTiles];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const int row = from + n * 8 + g;
      some[n] = row < rows;
      const int place = begin + min(row, rows - 1);
      const int of_x =
          a.experts.table != nullptr && a.experts.rows != nullptr ? a.experts.rows[place] : place;
      x_rows[n] = reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(a.x.data) +
                                                 static_cast<size_t>(of_x) * a.x.stride);
    }
    float sums[kTiles][4] = {};
    for (int base = warp; base < units; base += warps * kUnroll) {
      Eight<kCodes> w[kUnroll][2][2];
      __half2 s[kUnroll][2][2];
      uint4 x[kUnroll][kTiles][2];
#pragma unroll
      for (int i = 0; i < kUnroll; ++i) {
        const int unit = base + i * warps;
        if (unit >= units) break;
          // Behind the weight's end x is zero: what is multiplied there only has to be finite.
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if constexpr (kScaling == Scaling::kHalves) {
#pragma unroll
            for (int piece = 0; piece < 2; ++piece) {
              const int at = min(column(unit, piece), a.w.padded - 8);
              w[i][r][piece].load(code_rows[r], at);
              s[i][r][piece] = __ldg(scale_rows[r] + (at >> a.w.group_shift));
            }
          } else {
            const int at = min(column(unit, 0), a.w.padded - 16);
            Eight<kCodes>::load_two(w[i][r], code_rows[r], at);
            if constexpr (kScaling != Scaling::kNone)
              s[i][r][0] = __ldg(scale_rows[r] + (at >> a.w.group_shift));
          }
        }
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
          for (int piece = 0; piece < 2; ++piece)
            x[i][n][piece] = some[n] ? __ldg(x_rows[n] + column(unit, piece) / 8) : uint4{};
        }
      }
#pragma unroll
      for (int i = 0; i < kUnroll; ++i) {
        if (base + i * warps >= units) break;
        float parts[kTiles][4] = {}, ones[kTiles][4] = {};
#pragma unroll
        for (int piece = 0; piece < 2; ++piece) {
          unsigned p[2][4];
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            if constexpr (kScaling == Scaling::kCodes) {
              scaled_pairs(w[i][r][piece], __half22float2(s[i][r][0]), p[r]);
            } else {
              w[i][r][piece].pairs(p[r]);
            }
          }
          const unsigned early[4] = {p[0][0], p[1][0], p[0][1], p[1][1]};
          const unsigned late[4] = {p[0][2], p[1][2], p[0][3], p[1][3]};
          const unsigned one[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
#pragma unroll
          for (int n = 0; n < kTiles; ++n) {
            const uint4 v = x[i][n][piece];
            auto& to = kExact ? parts[n] : sums[n];
            mma(to, early, v.x, v.y);
            mma(to, late, v.z, v.w);
            if constexpr (kExact) {
              mma(ones[n], one, v.x, v.y);
              mma(ones[n], one, v.z, v.w);
            }
          }
          if constexpr (kExact) {
            if (kScaling == Scaling::kUnits && piece == 0) continue;
            const int own = kScaling == Scaling::kHalves ? piece : 0;
#pragma unroll
            for (int r = 0; r < 2; ++r) {
              float2 scale = __half22float2(s[i][r][own]);
              scale.y -= Eight<kCodes>::kOffset * scale.x;
#pragma unroll
              for (int n = 0; n < kTiles; ++n) {
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                  sums[n][2 * r + c] += scale.x * parts[n][2 * r + c] + scale.y * ones[n][c];
                  parts[n][2 * r + c] = 0.0f;
                }
              }
            }
#pragma unroll
            for (int n = 0; n < kTiles; ++n) {
#pragma unroll
              for (int c = 0; c < 4; ++c) ones[n][c] = 0.0f;
            }
          }
        }
      }
    }

    if (from > 0) __syncthreads();  // the tile before has been read
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) shares[warp][g + (c / 2) * 8][n * 8 + t * 2 + c % 2] = sums[n][c];
    }
    __syncthreads();
    const int here = min(rows - from, kTiles * 8), wide = a.f.gated ? kOutputs / 2 : kOutputs;
    for (int at = static_cast<int>(threadIdx.x); at < here * wide; at += static_cast<int>(blockDim.x)) {
      const int o = at % wide, r = at / wide;
      if (first + o > last) continue;
      const int to = a.first_column + first + o;
      float sum = 0.0f, up = 0.0f;
      for (int i = 0; i < warps; ++i) {
        sum += shares[i][o][r];
        if (a.f.gated) up += shares[i][o + 8][r];
      }
      if (bias != nullptr) {
        sum += bias[to];
        if (a.f.gated) up += bias[to + a.w.rows / 2];
      }
      store(a.f, begin + from + r, to, a.f.gated ? gate(sum, up, a.f.act) : activate(sum, a.f.act));
    }
  }
}

template <Codes kCodes, Scaling kScaling>
void launch(cudaStream_t stream, const Thin& a, int most_rows, int experts, int multiprocessors) {
  const int each = a.f.gated ? kOutputs / 2 : kOutputs, outputs = a.f.gated ? a.w.rows / 2 : a.w.rows;
  const dim3 grid((outputs + each - 1) / each, experts);
  const int units = a.x.stride / 64;
  int warps = kMostWarps;
  while (warps > 2 && (warps > units || static_cast<int>(grid.x * grid.y) * warps > 32 * multiprocessors))
    warps /= 2;
  if (most_rows <= 8) {
    thin_kernel<kCodes, kScaling, 1><<<grid, warps * 32, 0, stream>>>(a);
  } else if (most_rows <= 16) {
    thin_kernel<kCodes, kScaling, 2><<<grid, warps * 32, 0, stream>>>(a);
  } else {
    thin_kernel<kCodes, kScaling, 4><<<grid, warps * 32, 0, stream>>>(a);
  }
}

template <Codes kCodes>
void choose(cudaStream_t stream, const Thin& a, int most_rows, int experts, int multiprocessors) {
  if (a.w.group_shift >= 6)
    return launch<kCodes, Scaling::kUnits>(stream, a, most_rows, experts, multiprocessors);
  if (a.w.group_shift == 5)
    return launch<kCodes, Scaling::kHalves>(stream, a, most_rows, experts, multiprocessors);
  launch<kCodes, Scaling::kCodes>(stream, a, most_rows, experts, multiprocessors);
}

}  // namespace

void thin(cudaStream_t stream, const Rows& w, const Operand& x, int rows, int first_column, const Finish& f,
          const ExpertRows& experts, int multiprocessors) {
  const Thin a{w, x, rows, first_column, experts, f};
  const bool grouped = experts.table != nullptr;
  // Of experts, tiles for twice the average: a popular one takes several turns.
  const int most = grouped ? 2 * experts.places / experts.count + 1 : rows;
  const int blocks = grouped ? min(experts.count, experts.places) : 1;
  switch (w.type) {
    case Codes::k4:
      return choose<Codes::k4>(stream, a, most, blocks, multiprocessors);
    case Codes::k8:
      return choose<Codes::k8>(stream, a, most, blocks, multiprocessors);
    case Codes::kBF16:
      return launch<Codes::kBF16, Scaling::kNone>(stream, a, most, blocks, multiprocessors);
  }
}

}  // namespace mlxs::cuda
