// Products of many rows on Hopper's tensor cores (wgmma): a block has 128 outputs, two warpgroups of 64, and
// a tile of rows. Weights go from memory to registers, where codes become bf16 as the instruction's left
// operand wants them; the rows of x come through a ring in shared memory. The next weights are unpacked while
// the tensor cores run. Outputs are its rows, so that a gate and its up meet in one thread.
#include "backend/cuda/codes.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 256, kOutputs = 128, kDepth = 64, kStages = 4;

struct Wide {
  Rows w;
  Operand x;
  int rows;
  int first_column;
  int units;           // of 64 columns, in a split
  ExpertRows experts;  // table == nullptr: w alone, all rows
  Finish f;
  int half;             // gated: rows of the gates
  int last;             // the last output
  size_t split_floats;  // between the sums of two splits
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ inline void copy16(unsigned to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// kColumns / 8 times four sums of a thread: d += a · b.
template <int kColumns>
__device__ void multiply(float (&d)[kColumns / 2], const unsigned (&a)[4], unsigned long long b);

template <>
__device__ inline void multiply<64>(float (&d)[32], const unsigned (&a)[4], unsigned long long b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%"
      "27,%28,%29,"
      "%30,%31}, {%32,%33,%34,%35}, %36, 1, 1, 1, 0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]),
        "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
        "+f"(d[30]), "+f"(d[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

template <>
__device__ inline void multiply<128>(float (&d)[64], const unsigned (&a)[4], unsigned long long b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%"
      "27,%28,%29,"
      "%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%"
      "55,%56,%57,"
      "%58,%59,%60,%61,%62,%63}, {%64,%65,%66,%67}, %68, 1, 1, 1, 0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
        "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
        "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]),
        "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
        "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]),
        "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]),
        "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]),
        "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]),
        "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// Which expert, and which tile of its rows, a block of the grid's y is for; false: none.
__device__ bool find_tile(const ExpertRows& experts, int tile_rows, int& expert, int& tile) {
  __shared__ int found[2];
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x), wanted = static_cast<int>(blockIdx.y);
    int before = 0;
    if (lane == 0) found[0] = -1;
    __syncwarp();
    for (int base = 0; base < experts.count && before <= wanted; base += 32) {
      const int e = base + lane;
      const int own =
          e < experts.count ? (experts.first[e + 1] - experts.first[e] + tile_rows - 1) / tile_rows : 0;
      int sum = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int lower = __shfl_up_sync(0xffffffffu, sum, step);
        if (lane >= step) sum += lower;
      }
      const int from = before + sum - own;
      if (wanted >= from && wanted < from + own) {
        found[0] = e;
        found[1] = wanted - from;
      }
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
  }
  __syncthreads();
  expert = found[0];
  tile = found[1];
  return expert >= 0;
}

// A lane's sixteen columns of two rows of a unit: the left operands of four steps.
template <Codes kCodes>
struct Weights {
  Eight<kCodes> codes[2][2];
  __half2 scales[2];
  __device__ void unpack(unsigned (&a)[4][4]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int piece = 0; piece < 2; ++piece) {
        unsigned p[4];
        if constexpr (kCodes == Codes::k4) {
          codes[r][piece].pairs(p);
          const float2 scale = __half22float2(scales[r]);
          const __nv_bfloat162 factor = __float2bfloat162_rn(scale.x), bias = __float2bfloat162_rn(scale.y);
          const __nv_bfloat162 offset = __float2bfloat162_rn(Eight<kCodes>::kOffset);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            auto& two = reinterpret_cast<__nv_bfloat162&>(p[i]);
            two = __hfma2(__hsub2(two, offset), factor, bias);
          }
        } else {
          scaled_pairs(codes[r][piece], __half22float2(scales[r]), p);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) a[2 * piece + i / 2][r + i % 2 * 2] = p[i];
      }
    }
  }
};

template <Codes kCodes, int kTile>
__device__ void product(const Wide& a) {
  constexpr int kStageBytes = kTile * kDepth * 2, kRowsEach = kTile * 8 / kThreads;
  extern __shared__ __align__(1024) char memory[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;

  const void* codes = a.w.codes;
  const void* scales = a.w.scales;
  const float* bias = a.f.bias;
  int begin = 0, rows = a.rows, tile = static_cast<int>(blockIdx.y);
  if (a.experts.table != nullptr) {
    int expert;
    if (!find_tile(a.experts, kTile, expert, tile)) return;
    const ExpertWeight own = a.experts.table[expert];
    codes = own.codes;
    scales = own.scales;
    bias = own.bias;
    begin = a.experts.first[expert];
    rows = a.experts.first[expert + 1] - begin;
  }
  const int from_row = tile * kTile;
  const int from_unit = static_cast<int>(blockIdx.z) * a.units;
  const int units = min(a.x.stride / kDepth - from_unit, a.units);

  // This thread copies 16 bytes of each 32nd row of x, to where the swizzle of 128 bytes has them.
  const unsigned ring = static_cast<unsigned>(__cvta_generic_to_shared(memory));
  const uint4* x_from[kRowsEach];
#pragma unroll
  for (int i = 0; i < kRowsEach; ++i) {
    const int place = begin + min(from_row + static_cast<int>(threadIdx.x) / 8 + i * 32, rows - 1);
    const int row = a.experts.table != nullptr && a.experts.rows != nullptr ? a.experts.rows[place] : place;
    x_from[i] = reinterpret_cast<const uint4*>(static_cast<const __nv_bfloat16*>(a.x.data) +
                                               static_cast<size_t>(row) * a.x.stride + from_unit * kDepth) +
                threadIdx.x % 8;
  }
  const unsigned x_to = (threadIdx.x / 8) * 128 + ((threadIdx.x % 8) ^ (threadIdx.x / 8 % 8)) * 16;
  const auto fetch = [&](int unit) {
    if (unit < units) {
      const unsigned stage = ring + unit % kStages * kStageBytes + x_to;
#pragma unroll
      for (int i = 0; i < kRowsEach; ++i) copy16(stage + i * 32 * 128, x_from[i] + unit * 8);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };

  // The warp's sixteen lines: outputs, or eight gates and their ups.
  const int height = a.half > 0 ? 8 : 16;
  const int first = static_cast<int>(blockIdx.x) * (8 * height) + warp * height;
  const char* code_at[2];
  const __half2* scale_at[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int out = a.half > 0 ? min(first + g, a.last) + r * a.half : min(first + g + 8 * r, a.last);
    code_at[r] = static_cast<const char*>(codes) + code_row_bytes(kCodes, a.w.padded) * out;
    scale_at[r] = static_cast<const __half2*>(scales) +
                  static_cast<size_t>(groups_of(a.w.padded, a.w.group_shift)) * out;
  }
  const auto read = [&](int unit, Weights<kCodes>& to) {
    const int column = (from_unit + min(unit, units - 1)) * kDepth + t * 16;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int piece = 0; piece < 2; ++piece) to.codes[r][piece].read(code_at[r], column + piece * 8);
      if constexpr (kCodes != Codes::kBF16) to.scales[r] = __ldg(scale_at[r] + (column >> a.w.group_shift));
    }
  };

  float sums[kTile / 2] = {};
  const unsigned long long descriptor = 1ull << 62 | 64ull << 32 | 1ull << 16;
  const auto run = [&](int unit, const unsigned(&left)[4][4]) {
    const unsigned stage = ring + unit % kStages * kStageBytes;
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int step = 0; step < 4; ++step)
      multiply<kTile>(sums, left[step], descriptor | ((stage + step * 32) & 0x3ffff) >> 4);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  };
  const auto arrive = [&] {  // the oldest stage is here, for all threads and the tensor cores
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncthreads();
  };
  Weights<kCodes> raw;
  unsigned even[4][4], odd[4][4];
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) fetch(i);
  read(0, raw);
  raw.unpack(even);
  read(1, raw);
  for (int unit = 0; unit < units; unit += 2) {
    arrive();
    run(unit, even);
    fetch(unit + kStages - 1);
    raw.unpack(odd);
    read(unit + 2, raw);
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    if (unit + 1 >= units) break;
    arrive();
    run(unit + 1, odd);
    fetch(unit + kStages);
    raw.unpack(even);
    read(unit + 3, raw);
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }

  // Through the ring's memory, so that what follows a sum is there once, and neighbours write neighbours.
  auto* shared =
      reinterpret_cast<float*>(memory);  // [kTile][kOutputs], columns exchanged to spread over the banks
  __syncthreads();
#pragma unroll
  for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int row = n * 8 + t * 2 + c % 2, line = warp * 16 + g + c / 2 * 8;
      shared[row * kOutputs + (line ^ t * 8)] = sums[4 * n + c];
    }
  }
  __syncthreads();
  Finish f = a.f;
  if (f.y != nullptr) f.y += blockIdx.z * a.split_floats;
  const int shift = a.half > 0 ? 6 : 7, wide = 1 << shift;  // outputs of the block
  const int first_out = static_cast<int>(blockIdx.x) << shift, here = min(kTile, rows - from_row);
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < here * wide; at += kThreads) {
    const int row = at >> shift, o = at & (wide - 1), out = first_out + o, to = a.first_column + out;
    if (out > a.last) continue;
    const float* sums_of = shared + row * kOutputs;
    const int swap = (row / 2 % 4) * 8;
    if (a.half > 0) {
      const int line = o / 8 * 16 + o % 8;
      float low = sums_of[line ^ swap], up = sums_of[(line + 8) ^ swap];
      if (bias != nullptr) {
        low += bias[to];
        up += bias[to + a.half];
      }
      store(f, begin + from_row + row, to, gate(low, up, f.act));
    } else {
      const float sum = sums_of[o ^ swap] + (bias != nullptr ? bias[to] : 0.0f);
      store(f, begin + from_row + row, to, activate(sum, f.act));
    }
  }
}

#endif

template <Codes kCodes, int kTile>
__global__ __launch_bounds__(kThreads, kTile == 64 ? 2 : 1) void wide_kernel(const __grid_constant__ Wide a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  product<kCodes, kTile>(a);
#endif
}

template <Codes kCodes, int kTile>
void start(cudaStream_t stream, const Wide& a, int splits) {
  const dim3 grid((a.last + 1 + (a.half > 0 ? 64 : kOutputs) - 1) / (a.half > 0 ? 64 : kOutputs),
                  a.experts.table != nullptr
                      ? a.experts.places / kTile + min(a.experts.count, a.experts.places)
                      : (a.rows + kTile - 1) / kTile,
                  splits);
  constexpr int kBytes = kStages * kTile * kDepth * 2;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(wide_kernel<kCodes, kTile>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  static_cast<void>(allowed);
  wide_kernel<kCodes, kTile><<<grid, kThreads, kBytes, stream>>>(a);
}

template <Codes kCodes>
void choose(cudaStream_t stream, const Wide& a, int rows, int splits) {
  if (rows <= 64) return start<kCodes, 64>(stream, a, splits);
  start<kCodes, 128>(stream, a, splits);
}

}  // namespace

int wide_splits(const Rows& w, int rows, int multiprocessors) {
  const int tile = rows <= 64 ? 64 : 128, units = w.padded / kDepth;
  const int blocks = (w.rows + kOutputs - 1) / kOutputs * ((rows + tile - 1) / tile);
  // Each split at least eight units long, and no more of them than multiprocessors have room for.
  const int wanted = (tile == 64 ? 2 : 1) * multiprocessors / blocks;
  return max(1, min(wanted, units / 8));
}

void wide(cudaStream_t stream, const Rows& w, const Operand& x, int rows, int first_column, int splits,
          size_t split_floats, const Finish& f, const ExpertRows& experts) {
  const int half = f.gated ? w.rows / 2 : 0;
  const Wide a{w,
               x,
               rows,
               first_column,
               (x.stride / kDepth + splits - 1) / splits,
               experts,
               f,
               half,
               (f.gated ? half : w.rows) - 1,
               split_floats};
  const int most = experts.table != nullptr ? experts.places / experts.count : rows;
  switch (w.type) {
    case Codes::k4:
      return choose<Codes::k4>(stream, a, most, splits);
    case Codes::k8:
      return choose<Codes::k8>(stream, a, most, splits);
    case Codes::kBF16:
      return choose<Codes::kBF16>(stream, a, most, splits);
  }
}

}  // namespace mlxs::cuda
