// Attention over pages. Eight lanes share a token: each holds every eighth group of eight dims, so that a
// token's key is read in whole 128-byte pieces; the sixteen groups of a block walk the tokens with an online
// softmax of their own and are merged at the end. Few rows: the tokens are split over blocks, and the last of
// those to end merges them. Where each row is the only one of its sequence, the kernel also turns its heads
// and puts its key and value into their page.
#include <cuda_bf16.h>

#include "backend/cuda/attend.cuh"
#include "backend/cuda/head.cuh"
#include "backend/cuda/kv_codes.cuh"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 128, kGroups = kThreads / 8;

__device__ inline void unpack(const uint4& from, float* to) {
  const unsigned words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = __uint_as_float(words[i] << 16);
    to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
__device__ inline void unpack(const uint2& from, float* to) {
  open_codes(from.x, to);
  open_codes(from.y, to + 4);
}

// kParts: dims in units of 64. kHeads: query heads of a block, which share a KV head and what is read of it.
template <int kParts, int kHeads, bool kInt8>
__global__ __launch_bounds__(kThreads) void attend_kernel(const __grid_constant__ Attend a) {
  await();
  constexpr int kDims = kParts * 64;
  using Element = KvElement<kInt8>;
  using Eight = std::conditional_t<kInt8, uint2, uint4>;
  const StepRows& step = a.step;
  const Attention& spec = a.spec;
  const KvLayer& kv = a.kv;
  __shared__ __align__(16) float queries[kHeads][kDims];
  __shared__ __align__(16) float fresh[kDims];          // the row's own key, before it is rounded
  __shared__ __align__(16) Element fresh_kv[2][kDims];  // its key and value as others will read them
  __shared__ float fresh_scales[2];
  __shared__ float highest[kHeads][kGroups], totals[kHeads][kGroups];
  __shared__ float merged[kGroups][kDims + 4];
  const int row = static_cast<int>(blockIdx.x), first_head = static_cast<int>(blockIdx.y) * kHeads;
  const int split = static_cast<int>(blockIdx.z), splits = a.splits;
  const int group_heads = spec.heads / kv.kv_heads, kv_head = first_head / group_heads;
  const int lane = threadIdx.x % 8, group = threadIdx.x / 8;
  const int position = step.positions[row];
  const int* pages = step.pages + step.first_page[row];
  int begin = spec.window > 0 ? max(0, position - spec.window + 1) : 0;
  int end = spec.causal ? position + 1 : step.lengths[row];
  const int each = (end - begin + splits - 1) / splits;
  begin += split * each;
  end = min(end, begin + each);

  // A token's key and value; the next ones are on their way while one is used.
  const bool adds = a.q == nullptr;
  Eight keys[kParts], values[kParts], next_keys[kParts], next_values[kParts];
  float scales[2] = {1.0f, 1.0f}, next_scales[2] = {1.0f, 1.0f};  // of key and value
  const auto read = [&](int first) {
    const int token = min(first + group, end - 1);
    if (adds && token == position) return;  // not in its page yet
    const size_t slot =
        (static_cast<size_t>(pages[token / kPage]) * kv.kv_heads + kv_head) * kPage + token % kPage;
    const auto* key = static_cast<const Element*>(kv.keys) + slot * kv.key_dim;
    const auto* value = static_cast<const Element*>(kv.values) + slot * kv.value_dim;
    if constexpr (kInt8) {
      next_scales[0] = kv.key_scales[slot];
      next_scales[1] = kv.value_scales[slot];
    }
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int dim = p * 64 + lane * 8;
      next_keys[p] = dim < kv.key_dim ? *reinterpret_cast<const Eight*>(key + dim) : Eight{};
      next_values[p] = dim < kv.value_dim ? *reinterpret_cast<const Eight*>(value + dim) : Eight{};
    }
  };
  if (begin < end) read(begin);

  if (adds) {
    const int query_columns = spec.heads * kv.key_dim, key_columns = kv.kv_heads * kv.key_dim;
    const float* own =
        a.qkv + static_cast<size_t>(row) * (query_columns + key_columns + kv.kv_heads * kv.value_dim);
    const bool here = begin <= position && position < end;
    const bool writes = here && first_head % group_heads == 0;
    const size_t slot = here
                            ? (static_cast<size_t>(pages[position / kPage]) * kv.kv_heads + kv_head) * kPage +
                                  position % kPage
                            : 0;
    for (int v = static_cast<int>(threadIdx.x) / 32; v < kHeads + (here ? 2 : 0); v += kThreads / 32) {
      const int own_lane = threadIdx.x % 32;
      if (v < kHeads) {
        turn_head(own + (first_head + v) * kv.key_dim, kv.key_dim, spec.norm_query, spec.query_norm,
                  spec.rotation, row, queries[v]);
        for (int i = own_lane; i < kDims; i += 32)
          queries[v][i] = i < kv.key_dim ? queries[v][i] * spec.scale : 0.0f;
        continue;
      }
      const bool is_key = v == kHeads;
      const int dims = is_key ? kv.key_dim : kv.value_dim;
      if (is_key) {
        turn_head(own + query_columns + kv_head * dims, dims, spec.norm_key, spec.key_norm, spec.rotation,
                  row, fresh);
      }
      const float* from = is_key ? fresh : own + query_columns + key_columns + kv_head * dims;
      auto* to = static_cast<Element*>(is_key ? kv.keys : kv.values) + slot * dims;
      float inverse = 0.0f;
      if constexpr (kInt8) {
        unsigned largest = 0;
        for (int i = own_lane; i < dims; i += 32) largest = max(largest, magnitude(from[i]));
        const float scale = kv_scale(largest);
        inverse = inverse_scale(scale);
        if (own_lane == 0) {
          fresh_scales[is_key ? 0 : 1] = scale;
          if (writes) (is_key ? kv.key_scales : kv.value_scales)[slot] = scale;
        }
      }
      for (int i = own_lane; i < kDims; i += 32) {
        const Element value = kv_element<kInt8>(i < dims ? from[i] : 0.0f, inverse);
        fresh_kv[is_key ? 0 : 1][i] = value;
        if (writes && i < dims) to[i] = value;
      }
    }
  } else {
    const float* own = a.q + (static_cast<size_t>(row) * spec.heads + first_head) * kv.key_dim;
    for (int i = static_cast<int>(threadIdx.x); i < kHeads * kDims; i += kThreads) {
      const int head = i / kDims, dim = i % kDims;
      queries[head][dim] = dim < kv.key_dim ? own[head * kv.key_dim + dim] * spec.scale : 0.0f;
    }
  }
  __syncthreads();
  float sums[kHeads][kParts * 8] = {}, most[kHeads], total[kHeads] = {};
#pragma unroll
  for (int h = 0; h < kHeads; ++h) most[h] = kNothing;
  // Every group makes the same number of turns: the shuffles want whole warps.
  for (int first = begin; first < end; first += kGroups) {
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      keys[p] = next_keys[p];
      values[p] = next_values[p];
    }
    scales[0] = next_scales[0];
    scales[1] = next_scales[1];
    if (adds && min(first + group, end - 1) == position) {
#pragma unroll
      for (int p = 0; p < kParts; ++p) {
        keys[p] = *reinterpret_cast<const Eight*>(&fresh_kv[0][p * 64 + lane * 8]);
        values[p] = *reinterpret_cast<const Eight*>(&fresh_kv[1][p * 64 + lane * 8]);
      }
      if constexpr (kInt8) {
        scales[0] = fresh_scales[0];
        scales[1] = fresh_scales[1];
      }
    }
    if (first + kGroups < end) read(first + kGroups);
    float scores[kHeads] = {};
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      float numbers[8];
      unpack(keys[p], numbers);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const auto* four = reinterpret_cast<const float4*>(&queries[h][p * 64 + lane * 8]);
        const float4 low = four[0], high = four[1];
        scores[h] += numbers[0] * low.x + numbers[1] * low.y + numbers[2] * low.z + numbers[3] * low.w +
                     numbers[4] * high.x + numbers[5] * high.y + numbers[6] * high.z + numbers[7] * high.w;
      }
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int step_size = 4; step_size > 0; step_size /= 2)
        scores[h] += __shfl_xor_sync(0xffffffffu, scores[h], step_size);
    }
    if (first + group >= end) continue;
    float weights[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      float score = scores[h];
      if constexpr (kInt8) score *= scales[0];
      if (spec.soft_cap > 0.0f) score = spec.soft_cap * tanhf(score / spec.soft_cap);
      if (score > most[h]) {
        const float shrink = __expf(most[h] - score);
        most[h] = score;
        total[h] *= shrink;
#pragma unroll
        for (int i = 0; i < kParts * 8; ++i) sums[h][i] *= shrink;
      }
      weights[h] = __expf(score - most[h]);
      total[h] += weights[h];
      if constexpr (kInt8) weights[h] *= scales[1];
    }
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      float numbers[8];
      unpack(values[p], numbers);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[h][p * 8 + i] = fmaf(weights[h], numbers[i], sums[h][p * 8 + i]);
      }
    }
  }

  if (lane == 0) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      highest[h][group] = most[h];
      totals[h][group] = total[h];
    }
  }
  const int places = step.rows * spec.heads;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    __syncthreads();  // the head before has been read
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
#pragma unroll
      for (int i = 0; i < 8; ++i) merged[group][p * 64 + lane * 8 + i] = sums[h][p * 8 + i];
    }
    __syncthreads();
    float top = kNothing;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) top = fmaxf(top, highest[h][g]);
    const bool sink = spec.sinks != nullptr && split == 0;
    if (sink) top = fmaxf(top, spec.sinks[first_head + h]);
    float sum = sink ? __expf(spec.sinks[first_head + h] - top) : 0.0f;
    float factors[kGroups];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      factors[g] = __expf(highest[h][g] - top);
      sum += totals[h][g] * factors[g];
    }
    const int place = row * spec.heads + first_head + h;
    float* out = splits > 1 ? part_of(a.partial, split, places, place, kv.value_dim) : nullptr;
    for (int dim = static_cast<int>(threadIdx.x); dim < kv.value_dim; dim += kThreads) {
      float value = 0.0f;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) value += merged[g][dim] * factors[g];
      if (splits == 1) {
        put_head(a.y, a.operand, place, dim, kv.value_dim, spec.heads, share_of(value, sum));
      } else {
        out[dim] = value;
      }
    }
    if (splits > 1 && threadIdx.x == 0) {
      out[kv.value_dim] = top;
      out[kv.value_dim + 1] = sum;
    }
  }
  if (splits == 1) return;

  if (!is_last_block(a.counters + row * gridDim.y + blockIdx.y, splits)) return;
  for (int h = static_cast<int>(threadIdx.x) / 32; h < kHeads; h += kThreads / 32)
    merge<kParts>(a.partial, splits, places, row * spec.heads + first_head + h, spec.heads, kv.value_dim, a.y,
                  a.operand);
}

// Of a block: as many as registers allow and the KV heads' groups divide into.
int heads_together(int heads, int kv_heads, int dims) {
  const int group = heads / kv_heads;
  return group % 4 == 0 && dims <= 128 ? 4 : group % 2 == 0 ? 2 : 1;
}

}  // namespace

int attention_splits(const StepRows& step, int heads, const KvLayer& kv, int multiprocessors) {
  const int blocks = step.rows * heads / heads_together(heads, kv.kv_heads, max(kv.key_dim, kv.value_dim));
  if (blocks > kAttentionCounters) return 1;
  const int wanted = 4 * multiprocessors / blocks, possible = (step.longest + 31) / 32;
  return max(1, min(min(wanted, possible), 64));
}

namespace {

template <int kParts, bool kInt8>
void start(cudaStream_t stream, const Attend& a) {
  const auto run = [&](auto kernel, int heads) {
    launch_early(kernel, dim3(a.step.rows, a.spec.heads / heads, a.splits), kThreads, 0, stream, a);
  };
  const int together = heads_together(a.spec.heads, a.kv.kv_heads, max(a.kv.key_dim, a.kv.value_dim));
  if constexpr (kParts <= 2) {
    if (together == 4) return run(attend_kernel<kParts, 4, kInt8>, 4);
  }
  if (together == 2) return run(attend_kernel<kParts, 2, kInt8>, 2);
  run(attend_kernel<kParts, 1, kInt8>, 1);
}
template <int kParts>
void start(cudaStream_t stream, const Attend& a) {
  if (a.kv.key_scales != nullptr) return start<kParts, true>(stream, a);
  start<kParts, false>(stream, a);
}

}  // namespace

void attend(cudaStream_t stream, const float* q, const float* qkv, const StepRows& step,
            const Attention& spec, const KvLayer& kv, int splits, float* partial, int* counters, float* y,
            const Operand& operand) {
  const Attend a{q, qkv, step, spec, kv, splits, partial, counters, y, operand};
  switch ((max(kv.key_dim, kv.value_dim) + 63) / 64) {
    case 1:
      return start<1>(stream, a);
    case 2:
      return start<2>(stream, a);
    case 3:
      return start<3>(stream, a);
    default:
      return start<4>(stream, a);
  }
}

}  // namespace mlxs::cuda
