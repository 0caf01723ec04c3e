// Attention over pages. Eight lanes share a token: each holds every eighth group of eight dims, so that a
// token's key is read in whole 128-byte pieces; the sixteen groups of a block walk the tokens with an online
// softmax of their own and are merged at the end. Few rows: the tokens are split over blocks, and a second
// kernel merges those.
#include <cuda_bf16.h>

#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kPage = 16;  // tokens of a page (kPageTokens)
constexpr int kThreads = 128, kGroups = kThreads / 8;
constexpr float kNothing = -1e30f;  // the maximum of no scores; finite, so that differences are numbers

__device__ inline void unpack(const uint4& from, float* to) {
  const unsigned words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = __uint_as_float(words[i] << 16);
    to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

__device__ inline void put(float* y, const Operand& operand, size_t place, int dim, int dims, int heads,
                           float value) {
  y[place * dims + dim] = value;
  put_operand(operand, static_cast<int>(place / heads), static_cast<int>(place % heads) * dims + dim, value);
}

// kParts: dims in units of 64. kHeads: query heads of a block, which share a KV head and what is read of it.
template <int kParts, int kHeads>
__global__ __launch_bounds__(kThreads) void attend_kernel(const float* __restrict__ q, StepRows step,
                                                          Attention spec, KvLayer kv, int splits,
                                                          float* partial, float* y, Operand operand) {
  await();
  constexpr int kDims = kParts * 64;
  __shared__ __align__(16) float queries[kHeads][kDims];
  __shared__ float highest[kHeads][kGroups], totals[kHeads][kGroups];
  __shared__ float merged[kGroups][kDims + 4];
  const int row = static_cast<int>(blockIdx.x), first_head = static_cast<int>(blockIdx.y) * kHeads;
  const int split = static_cast<int>(blockIdx.z);
  const int kv_head = first_head / (spec.heads / kv.kv_heads);
  const int lane = threadIdx.x % 8, group = threadIdx.x / 8;
  const int position = step.positions[row];
  int begin = spec.window > 0 ? max(0, position - spec.window + 1) : 0;
  int end = spec.causal ? position + 1 : step.lengths[row];
  const int each = (end - begin + splits - 1) / splits;
  begin += split * each;
  end = min(end, begin + each);

  const float* own = q + (static_cast<size_t>(row) * spec.heads + first_head) * kv.key_dim;
  for (int i = static_cast<int>(threadIdx.x); i < kHeads * kDims; i += kThreads) {
    const int head = i / kDims, dim = i % kDims;
    queries[head][dim] = dim < kv.key_dim ? own[head * kv.key_dim + dim] * spec.scale : 0.0f;
  }
  __syncthreads();
  float sums[kHeads][kParts * 8] = {}, most[kHeads], total[kHeads] = {};
#pragma unroll
  for (int h = 0; h < kHeads; ++h) most[h] = kNothing;
  const int* pages = step.pages + step.first_page[row];
  // Every group makes the same number of turns: the shuffles want whole warps.
  for (int first = begin; first < end; first += kGroups) {
    const int token = min(first + group, end - 1);
    const size_t slot =
        (static_cast<size_t>(pages[token / kPage]) * kv.kv_heads + kv_head) * kPage + token % kPage;
    const auto* key = static_cast<const __nv_bfloat16*>(kv.keys) + slot * kv.key_dim;
    const auto* value = static_cast<const __nv_bfloat16*>(kv.values) + slot * kv.value_dim;
    uint4 keys[kParts], values[kParts];
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int dim = p * 64 + lane * 8;
      keys[p] = dim < kv.key_dim ? *reinterpret_cast<const uint4*>(key + dim) : uint4{};
      values[p] = dim < kv.value_dim ? *reinterpret_cast<const uint4*>(value + dim) : uint4{};
    }
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
    const size_t place = static_cast<size_t>(row) * spec.heads + first_head + h;
    float* out =
        partial + ((static_cast<size_t>(split) * step.rows * spec.heads) + place) * (kv.value_dim + 2);
    for (int dim = static_cast<int>(threadIdx.x); dim < kv.value_dim; dim += kThreads) {
      float value = 0.0f;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) value += merged[g][dim] * factors[g];
      if (splits == 1) {
        put(y, operand, place, dim, kv.value_dim, spec.heads, sum > 0.0f ? value / sum : 0.0f);
      } else {
        out[dim] = value;
      }
    }
    if (splits > 1 && threadIdx.x == 0) {
      out[kv.value_dim] = top;
      out[kv.value_dim + 1] = sum;
    }
  }
}

__global__ void merge_kernel(const float* __restrict__ partial, int splits, int places, int heads, int dims,
                             float* y, Operand operand) {
  await();
  const int place = static_cast<int>(blockIdx.x), lane = threadIdx.x % 32;
  const auto part = [&](int s) { return partial + (static_cast<size_t>(s) * places + place) * (dims + 2); };
  // Each warp for itself: a lane two splits, of which there are 64 at most.
  float factors[2], top = kNothing;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    factors[i] = lane + 32 * i < splits ? part(lane + 32 * i)[dims] : kNothing;
    top = fmaxf(top, factors[i]);
  }
#pragma unroll
  for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, step));
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    factors[i] = __expf(factors[i] - top);
    if (lane + 32 * i < splits) sum += part(lane + 32 * i)[dims + 1] * factors[i];
  }
  sum = warp_sum(sum);
  for (int base = 0; base < dims; base += static_cast<int>(blockDim.x)) {
    const int dim = base + static_cast<int>(threadIdx.x);
    float value = 0.0f;
    for (int s = 0; s < splits; ++s) {
      const float factor = __shfl_sync(0xffffffffu, s < 32 ? factors[0] : factors[1], s % 32);
      if (dim < dims) value += part(s)[dim] * factor;
    }
    if (dim < dims) put(y, operand, place, dim, dims, heads, sum > 0.0f ? value / sum : 0.0f);
  }
}

// Of a block: as many as registers allow and the KV heads' groups divide into.
int heads_together(int heads, int kv_heads, int dims) {
  const int group = heads / kv_heads;
  return group % 4 == 0 && dims <= 128 ? 4 : group % 2 == 0 ? 2 : 1;
}

}  // namespace

int attention_splits(const StepRows& step, int heads, const KvLayer& kv, int multiprocessors) {
  const int blocks = step.rows * heads / heads_together(heads, kv.kv_heads, max(kv.key_dim, kv.value_dim));
  const int wanted = 8 * multiprocessors / blocks, possible = (step.longest + 63) / 64;
  const int splits = wanted < possible ? wanted : possible;
  return splits < 1 ? 1 : (splits > 64 ? 64 : splits);
}

namespace {

template <int kParts>
void start(cudaStream_t stream, const float* q, const StepRows& step, const Attention& spec,
           const KvLayer& kv, int splits, float* partial, float* y, const Operand& operand) {
  const auto run = [&](auto kernel, int heads) {
    launch_early(kernel, dim3(step.rows, spec.heads / heads, splits), kThreads, 0, stream, q, step, spec, kv,
                 splits, partial, y, operand);
  };
  const int together = heads_together(spec.heads, kv.kv_heads, max(kv.key_dim, kv.value_dim));
  if constexpr (kParts <= 2) {
    if (together == 4) return run(attend_kernel<kParts, 4>, 4);
  }
  if (together == 2) return run(attend_kernel<kParts, 2>, 2);
  run(attend_kernel<kParts, 1>, 1);
}

}  // namespace

void attend(cudaStream_t stream, const float* q, const StepRows& step, const Attention& spec,
            const KvLayer& kv, int splits, float* partial, float* y, const Operand& operand) {
  const auto run = [&](auto start_of) { start_of(stream, q, step, spec, kv, splits, partial, y, operand); };
  switch ((max(kv.key_dim, kv.value_dim) + 63) / 64) {
    case 1:
      run(start<1>);
      break;
    case 2:
      run(start<2>);
      break;
    case 3:
      run(start<3>);
      break;
    default:
      run(start<4>);
      break;
  }
  if (splits > 1)
    launch_early(merge_kernel, dim3(step.rows * spec.heads), 128, 0, stream, partial, splits,
                 step.rows * spec.heads, spec.heads, kv.value_dim, y, operand);
}

}  // namespace mlxs::cuda
