// Products of a few rows: bound by the bytes of the weights, which are read once for all rows. A block has 16
// outputs; its warps share the inputs out, 64 columns (a unit) at a time, straight from memory into the
// registers that the tensor cores take (mma.sync, bf16 operands, f32 sums): no weight passes through shared
// memory. Codes of 4 and 8 bits are exact in bf16, so groups of 32 and more are scaled behind the product, in
// f32; the sum of the inputs that a group's bias multiplies comes from a product with ones. The first weights
// are on their way before the inputs are there.
#include "backend/cuda/codes.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

struct Thin {
  Rows w;
  Operand x;
  int rows;
  int first_column;
  ExpertRows experts;  // table == nullptr: w alone, all rows
  Finish f;
  // What all threads would have to work out.
  int own_units = 0;         // of a warp
  int half = 0;              // gated: rows of the gates
  int height = 0, last = 0;  // outputs of a tile; the last output
  size_t code_bytes = 0;     // of a row
  int scales = 0;            // of a row
};

// A unit is a group, or two or four pieces of one: how its product meets its scale.
template <Codes kCodes, Scaling kScaling>
constexpr bool kExact = kScaling == Scaling::kUnits || kScaling == Scaling::kHalves;

// Sixteen bytes from memory to shared memory, without passing through registers.
__device__ inline void copy16(void* to, const void* from) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(to))),
      "l"(from)
      : "memory");
}
constexpr int kMost = 8;  // warps of a block

// What a warp has under way: units of the codes of its sixteen rows.
template <Codes kCodes>
struct Ring {
  static constexpr int kUnitBytes = kCodes == Codes::k4 ? 32 : kCodes == Codes::k8 ? 64 : 128;  // of a row
  static constexpr int kStages = kCodes == Codes::k4 ? 8 : 4;
  static constexpr int kBytes = kStages * 16 * kUnitBytes;
};

// kTiles: tiles of eight rows.
template <Codes kCodes, Scaling kScaling, int kTiles>
__global__ __launch_bounds__(kMost * 32, kTiles == 1   ? 3
                                         : kTiles == 2 ? 2
                                                       : 1) void thin_kernel(const __grid_constant__ Thin a) {
  constexpr bool kBare = kExact<kCodes, kScaling>;
  using R = Ring<kCodes>;
  extern __shared__ __align__(16) char memory[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int g = lane / 4, t = lane % 4;

  const void* codes = a.w.codes;
  const void* scales = a.w.scales;
  const float* bias = a.f.bias;
  int begin = 0, rows = a.rows;
  if (a.experts.table != nullptr) {
    await();
    if (static_cast<int>(blockIdx.y) >= *a.experts.num_active) return;
    const int expert = a.experts.active[blockIdx.y];
    const ExpertWeight own = a.experts.table[expert];
    codes = own.codes;
    scales = own.scales;
    bias = own.bias;
    begin = a.experts.first[expert];
    rows = a.experts.first[expert + 1] - begin;
  }
  // The tile's rows g and g + 8 are outputs, or a gate and its up.
  const int first = static_cast<int>(blockIdx.x) * a.height;
  const auto line = [&](int i) {
    return a.half > 0 ? min(first + i % 8, a.last) + i / 8 * a.half : min(first + i, a.last);
  };
  const int units = a.x.stride / 64;
  const int from_unit = min(units, warp * a.own_units), to_unit = min(units, from_unit + a.own_units);

  // Lanes 2i and 2i + 1 copy line i's codes.
  constexpr int kCopies = R::kUnitBytes / 32;
  const auto* codes_from = static_cast<const char*>(codes) + a.code_bytes * line(lane / 2) +
                           lane % 2 * (R::kUnitBytes / 2) + from_unit * R::kUnitBytes;
  const char* codes_at = codes_from;
  char* own_memory = memory + warp * R::kBytes;
  char* codes_to = own_memory + lane * (R::kUnitBytes / 2);
  constexpr int kStage = 16 * R::kUnitBytes;
  int fetched = 0;  // units
  const auto fetch = [&] {
    if (from_unit + fetched < to_unit) {
#pragma unroll
      for (int i = 0; i < kCopies; ++i)
        copy16(codes_to + fetched * kStage % R::kBytes + i * 16, codes_at + i * 16);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
    codes_at += R::kUnitBytes;
    ++fetched;
  };
  const auto fetch_first = [&] {
    codes_at = codes_from;
    fetched = 0;
#pragma unroll 1
    for (int i = 0; i < R::kStages - 1; ++i) fetch();
  };
  fetch_first();
  if (a.experts.table == nullptr) await();
  constexpr int kUnitScales = kScaling == Scaling::kUnits ? 1 : kScaling == Scaling::kHalves ? 2 : 4;
  const __half2* scales_from[2];
#pragma unroll
  for (int r = 0; r < 2; ++r)
    scales_from[r] = static_cast<const __half2*>(scales) + static_cast<size_t>(a.scales) * line(g + 8 * r) +
                     from_unit * kUnitScales + (kScaling == Scaling::kCodes ? t : 0);

  // This lane's two pieces of eight columns in a unit: the second follows, or begins the next group.
  const int own_column = kScaling == Scaling::kHalves ? t * 8 : t * 16;
  constexpr int kApart = kScaling == Scaling::kHalves ? 32 : 8;
  for (int from = 0; from < rows; from += kTiles * 8) {
    const uint4* x_rows[kTiles];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const int place = begin + min(from + n * 8 + g, rows - 1);  // what there are too many is not stored
      const int of_x =
          a.experts.table != nullptr && a.experts.rows != nullptr ? a.experts.rows[place] : place;
      x_rows[n] = reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(a.x.data) +
                                                 static_cast<size_t>(of_x) * a.x.stride + own_column) +
                  from_unit * 8;
    }
    float sums[kTiles][4] = {};
    if (from > 0) fetch_first();
    __half2 s[2][2];
    uint4 x[kTiles][2];
    const __half2* scales_at[2] = {scales_from[0], scales_from[1]};
    const auto read = [&] {  // what is not copied, of the next unit
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if constexpr (kScaling != Scaling::kNone) s[r][0] = __ldg(scales_at[r]);
        if constexpr (kScaling == Scaling::kHalves) s[r][1] = __ldg(scales_at[r] + 1);
        scales_at[r] += kUnitScales;
      }
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int piece = 0; piece < 2; ++piece) x[n][piece] = x_rows[n][piece * (kApart / 8)];
        x_rows[n] += 8;
      }
    };
#pragma unroll 2
    for (int unit = 0; unit < to_unit - from_unit; ++unit) {
      read();
      asm volatile("cp.async.wait_group %0;" ::"n"(R::kStages - 2) : "memory");
      __syncwarp();  // the unit is here for all lanes, and all have read the one before
      fetch();
      const char* stage = own_memory + unit * kStage % R::kBytes;
      Eight<kCodes> w[2][2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int piece = 0; piece < 2; ++piece)
          w[r][piece].read(stage + (g + r * 8) * R::kUnitBytes, own_column + piece * kApart);
      }
      float parts[kTiles][4], ones[kTiles][4];
#pragma unroll
      for (int piece = 0; piece < 2; ++piece) {
        const bool opens = piece == 0 || kScaling == Scaling::kHalves;   // a group begins here
        const bool closes = piece == 1 || kScaling == Scaling::kHalves;  // and ends
        unsigned p[2][4];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if constexpr (kScaling == Scaling::kCodes) {
            scaled_pairs(w[r][piece], __half22float2(s[r][0]), p[r]);
          } else {
            w[r][piece].pairs(p[r]);
          }
        }
        const unsigned early[4] = {p[0][0], p[1][0], p[0][1], p[1][1]};
        const unsigned late[4] = {p[0][2], p[1][2], p[0][3], p[1][3]};
        const unsigned one[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
          const uint4 v = x[n][piece];
          if constexpr (!kBare) {
            mma(sums[n], early, v.x, v.y);
            mma(sums[n], late, v.z, v.w);
            continue;
          }
          if (opens) {
            mma_first(parts[n], early, v.x, v.y);
            mma_first(ones[n], one, v.x, v.y);
          } else {
            mma(parts[n], early, v.x, v.y);
            mma(ones[n], one, v.x, v.y);
          }
          mma(parts[n], late, v.z, v.w);
          mma(ones[n], one, v.z, v.w);
        }
        if constexpr (kBare) {
          if (!closes) continue;
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            float2 scale = __half22float2(s[r][kScaling == Scaling::kHalves ? piece : 0]);
            scale.y = fmaf(-Eight<kCodes>::kOffset, scale.x, scale.y);
#pragma unroll
            for (int n = 0; n < kTiles; ++n) {
#pragma unroll
              for (int c = 0; c < 2; ++c) {
                float& sum = sums[n][2 * r + c];
                sum = fmaf(scale.x, parts[n][2 * r + c], fmaf(scale.y, ones[n][c], sum));
              }
            }
          }
        }
      }
    }

    // The warps' sums together, in the memory of their copies, of which none is left.
    auto* shares = reinterpret_cast<float*>(memory);  // [warps][16][kTiles · 8 + 1]
    __syncthreads();
    constexpr int kWide = kTiles * 8 + 1;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c)
        shares[(warp * 16 + g + (c / 2) * 8) * kWide + n * 8 + t * 2 + c % 2] = sums[n][c];
    }
    __syncthreads();
    const int here = min(rows - from, kTiles * 8), shift = a.half > 0 ? 3 : 4, wide = 1 << shift;
    for (int at = static_cast<int>(threadIdx.x); at < here * wide; at += static_cast<int>(blockDim.x)) {
      const int o = at & (wide - 1), r = at >> shift;
      if (first + o > a.last) continue;
      const int to = a.first_column + first + o;
      float sum = 0.0f, up = 0.0f;
      for (int i = 0; i < warps; ++i) {
        const float* share = shares + (i * 16 + o) * kWide + r;
        sum += share[0];
        if (a.f.gated) up += share[8 * kWide];
      }
      if (bias != nullptr) {
        sum += bias[to];
        if (a.f.gated) up += bias[to + a.half];
      }
      store(a.f, begin + from + r, to, a.f.gated ? gate(sum, up, a.f.act) : activate(sum, a.f.act));
    }
    if (from + kTiles * 8 < rows) __syncthreads();  // before the next tile's copies
  }
}

template <Codes kCodes, Scaling kScaling, int kTiles>
void start(cudaStream_t stream, Thin a, int experts, int multiprocessors) {
  using R = Ring<kCodes>;
  a.half = a.f.gated ? a.w.rows / 2 : 0;
  a.height = a.f.gated ? 8 : 16;
  a.last = (a.f.gated ? a.half : a.w.rows) - 1;
  a.code_bytes = code_row_bytes(kCodes, a.w.padded);
  a.scales = groups_of(a.w.padded, a.w.group_shift);
  const dim3 grid(a.last / a.height + 1, experts);
  // Just enough warps to keep the memory busy: the longer each one's share, the less its beginning and end
  // matter.
  const int units = a.x.stride / 64, blocks = static_cast<int>(grid.x * grid.y);
  int warps = 1;
  while (warps < kMost && 4 * warps <= units && blocks * warps < 16 * multiprocessors) warps *= 2;
  a.own_units = (units + warps - 1) / warps;
  const int sums = 16 * (kTiles * 8 + 1) * 4;
  const size_t shared = static_cast<size_t>(warps) * (sums > R::kBytes ? sums : R::kBytes);
  const auto kernel = thin_kernel<kCodes, kScaling, kTiles>;
  static const cudaError_t allowed = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                          kMost * (sums > R::kBytes ? sums : R::kBytes));
  static_cast<void>(allowed);
  launch_early(kernel, grid, warps * 32, shared, stream, a);
}

template <Codes kCodes, Scaling kScaling>
void choose(cudaStream_t stream, const Thin& a, int most_rows, int experts, int multiprocessors) {
  if (most_rows <= 8) return start<kCodes, kScaling, 1>(stream, a, experts, multiprocessors);
  if (most_rows <= 16) return start<kCodes, kScaling, 2>(stream, a, experts, multiprocessors);
  start<kCodes, kScaling, 4>(stream, a, experts, multiprocessors);
}

template <Codes kCodes>
void choose_scaling(cudaStream_t stream, const Thin& a, int most_rows, int experts, int multiprocessors) {
  if (a.w.group_shift >= 6)
    return choose<kCodes, Scaling::kUnits>(stream, a, most_rows, experts, multiprocessors);
  if (a.w.group_shift == 5)
    return choose<kCodes, Scaling::kHalves>(stream, a, most_rows, experts, multiprocessors);
  choose<kCodes, Scaling::kCodes>(stream, a, most_rows, experts, multiprocessors);
}

}  // namespace

void thin(cudaStream_t stream, const Rows& w, const Operand& x, int rows, int first_column, const Finish& f,
          const ExpertRows& experts, int multiprocessors) {
  const Thin a{w, x, rows, first_column, experts, f};
  const bool grouped = experts.table != nullptr;
  // Of experts, tiles for twice the average: a popular one takes several turns.
  const int most = grouped ? 2 * experts.places / experts.count : rows;
  const int blocks = grouped ? min(experts.count, experts.places) : 1;
  switch (w.type) {
    case Codes::k4:
      return choose_scaling<Codes::k4>(stream, a, most, blocks, multiprocessors);
    case Codes::k8:
      return choose_scaling<Codes::k8>(stream, a, most, blocks, multiprocessors);
    case Codes::kBF16:
      return choose<Codes::kBF16, Scaling::kNone>(stream, a, most, blocks, multiprocessors);
  }
}

}  // namespace mlxs::cuda
