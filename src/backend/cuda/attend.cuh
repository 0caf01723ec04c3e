// What the kernels of attention share: where their results go, and how the splits of a row's tokens are
// merged.
#pragma once

#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/machine.cuh"

namespace mlxs::cuda {

__device__ inline unsigned pair(float a, float b) {
  const __nv_bfloat162 two = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const unsigned*>(&two);
}

constexpr int kPage = 16;           // tokens of a page (kPageTokens)
constexpr float kNothing = -1e30f;  // the maximum of no scores; finite, so that differences are numbers

__device__ inline void put_head(float* y, const Operand& operand, size_t place, int dim, int dims, int heads,
                                float value) {
  y[place * dims + dim] = value;
  put_operand(operand, static_cast<int>(place / heads), static_cast<int>(place % heads) * dims + dim, value);
}

// One row of a product's sums as mma() leaves them, lane % 4 = t having columns 2 t and 2 t + 1 of each
// eight: to the row of y and of the operand, from `column` on. All lanes of a warp call it together. sum(d,
// i): column 8 d + 2 t + i.
template <int kDims, class Sum>
__device__ void put_columns(float* y, const Operand& operand, int row, int column, int columns, bool wanted,
                            const Sum& sum) {
  static_assert(kDims % 64 == 0);
  const int t = threadIdx.x % 4;
  const bool second = t >= 2;  // has the second halves of the operand's pairs
  float* const to = y + static_cast<size_t>(row) * columns + column + 2 * t;
  auto* const line =
      static_cast<__nv_bfloat16*>(operand.data) + static_cast<size_t>(row) * operand.stride + column;
  const auto halves = [&](unsigned own, unsigned got) {  // the pairs of what two lanes have
    const unsigned low = second ? got : own, high = second ? own : got;
    return uint2{__byte_perm(low, high, 0x5410), __byte_perm(low, high, 0x7632)};
  };
#pragma unroll
  for (int d = 0; d < kDims / 8; d += 4) {
    unsigned own[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float low = sum(d + i, 0), high = sum(d + i, 1);
      if (wanted && y != nullptr) *reinterpret_cast<float2*>(to + (d + i) * 8) = {low, high};
      own[i] = pair(low, high);
    }
    if (operand.wide) {  // 32 columns of the operand are 16 bytes of each lane
      uint2 words[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const unsigned evens = __byte_perm(own[2 * i], own[2 * i + 1], 0x5410),
                       odds = __byte_perm(own[2 * i], own[2 * i + 1], 0x7632);
        words[i] = halves(second ? odds : evens, __shfl_xor_sync(0xffffffffu, second ? evens : odds, 2));
      }
      const int place = d / 8 * 64 + (2 * (d / 4 % 2) + t % 2) * 16 + t / 2 * 8;
      if (wanted) *reinterpret_cast<uint4*>(line + place) = {words[0].x, words[0].y, words[1].x, words[1].y};
    } else {  // sixteen columns are 8 bytes of each
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const unsigned kept = second ? own[i + 1] : own[i];
        const uint2 words = halves(kept, __shfl_xor_sync(0xffffffffu, second ? own[i] : own[i + 1], 2));
        if (wanted) *reinterpret_cast<uint2*>(line + (d + i) * 8 + t * 4) = words;
      }
    }
  }
}

// A block's part of a row that is alone in its sequence, by the grid: x the row, y a KV head and up to kRows
// of the heads that share it, z the split. It sees tokens begin … end - 1.
struct RowPart {
  int row, split, kv_head, part, first_head, heads, position, begin, end;
  const int* pages;
};
template <int kRows>
__device__ RowPart row_part(const StepRows& step, const Attention& spec, const KvLayer& kv) {
  RowPart own;
  own.row = static_cast<int>(blockIdx.x);
  own.split = static_cast<int>(blockIdx.z);
  const int group = spec.heads / kv.kv_heads, parts = (group + kRows - 1) / kRows;
  own.part = static_cast<int>(blockIdx.y) % parts;
  own.kv_head = static_cast<int>(blockIdx.y) / parts;
  own.first_head = own.kv_head * group + own.part * kRows;
  own.heads = min(kRows, group - own.part * kRows);
  own.position = step.positions[own.row];
  own.pages = step.pages + step.first_page[own.row];
  own.begin = spec.window > 0 ? max(0, own.position - spec.window + 1) : 0;
  own.end = spec.causal ? own.position + 1 : step.lengths[own.row];
  return own;
}

// Of what a row sees, which may be nothing. NaN stays.
__device__ inline float share_of(float value, float total) { return total == 0.0f ? 0.0f : value / total; }

// What a split of the tokens came to, for who merges: the sums, then the highest score and the total.
__device__ inline float* part_of(float* partial, int split, int places, int place, int dims) {
  return partial + (static_cast<size_t>(split) * places + place) * (dims + 2);
}

// One warp: a head's splits together, of which there are 64 at most.
template <int kParts>
__device__ void merge(float* partial, int splits, int places, int place, int heads, int dims, float* y,
                      const Operand& operand) {
  const int lane = threadIdx.x % 32;
  const auto part = [&](int s) { return part_of(partial, s, places, place, dims); };
  float factors[2], totals[2], top = kNothing;  // a lane two splits
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const bool is = lane + 32 * i < splits;
    factors[i] = is ? __ldcg(part(lane + 32 * i) + dims) : kNothing;
    totals[i] = is ? __ldcg(part(lane + 32 * i) + dims + 1) : 0.0f;
    top = fmaxf(top, factors[i]);
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    factors[i] = __expf(factors[i] - top);
    sum += totals[i] * factors[i];
  }
  sum = warp_sum(sum);
  float values[kParts * 2] = {};
#pragma unroll 8
  for (int s = 0; s < splits; ++s) {
    const float factor = __shfl_sync(0xffffffffu, s < 32 ? factors[0] : factors[1], s % 32);
    const float* from = part(s);
#pragma unroll
    for (int i = 0; i < kParts * 2; ++i) {
      const int dim = lane + 32 * i;
      if (dim < dims) values[i] += __ldcg(from + dim) * factor;
    }
  }
#pragma unroll
  for (int i = 0; i < kParts * 2; ++i) {
    const int dim = lane + 32 * i;
    if (dim < dims) put_head(y, operand, place, dim, dims, heads, share_of(values[i], sum));
  }
}

struct Attend {
  const float* q;    // rotated queries; null: qkv, each row being the only one of its sequence
  const float* qkv;  // whose keys and values the kernel puts into their pages
  StepRows step;
  Attention spec;
  KvLayer kv;
  int splits;
  float* partial;
  int* counters;  // [rows][blocks of heads], zero between launches: splits that are done
  float* y;
  Operand operand;
  bool joined = false;  // the splits are a cluster, and merged by it
};

constexpr int kMostSplitsTogether = 8;  // blocks of a cluster

#if defined(MLXS_HAS_CLUSTERS)
// Whole blocks of a cluster, each with a split of the tokens, and in its shared memory its heads' sums,
// [heads][kWide], highest scores and totals. Each puts its part of what all came to.
template <int kDims, int kWide>
__device__ void merge_in_cluster(const Attend& a, const float* sums, const float* tops, const float* totals,
                                 int heads, int first_place) {
  __shared__ float factors[kMostSplitsTogether][16], all[16];
  constexpr int kParts = kMostSplitsTogether;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  sync_cluster();
  if (thread < heads) {
    float each[kParts], own[kParts], top = kNothing, sum = 0.0f;
#pragma unroll
    for (int s = 0; s < kParts; ++s) {
      each[s] = s < a.splits ? read_cluster(tops + thread, s) : kNothing;
      own[s] = s < a.splits ? read_cluster(totals + thread, s) : 0.0f;
    }
#pragma unroll
    for (int s = 0; s < kParts; ++s) top = fmaxf(top, each[s]);
#pragma unroll
    for (int s = 0; s < kParts; ++s) {
      factors[s][thread] = each[s] = __expf(each[s] - top);
      sum += own[s] * each[s];
    }
    all[thread] = sum;
  }
  __syncthreads();
  for (int i = static_cast<int>(blockIdx.z) * threads + thread; i < heads * kDims; i += a.splits * threads) {
    const int r = i / kDims, dim = i % kDims;
    float parts[kParts], value = 0.0f;
#pragma unroll
    for (int s = 0; s < kParts; ++s) parts[s] = s < a.splits ? read_cluster(sums + r * kWide + dim, s) : 0.0f;
#pragma unroll
    for (int s = 0; s < kParts; ++s) value += parts[s] * factors[s][r];
    put_head(a.y, a.operand, first_place + r, dim, kDims, a.spec.heads, share_of(value, all[r]));
  }
  sync_cluster();  // the others have read what is here
}
#endif

}  // namespace mlxs::cuda
