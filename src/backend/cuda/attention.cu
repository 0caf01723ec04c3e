// Attention over pages. Eight lanes share a token: each holds every eighth group of eight dims, so that a
// token's key is read in whole 128-byte pieces; the sixteen groups of a block walk the tokens with an online
// softmax of their own and are merged at the end. Few rows: the tokens are split over blocks, and a second
// kernel merges those.
#include <cuda_bf16.h>

#include "backend/cuda/epilogue.cuh"

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

// kParts: dims in units of 64.
template <int kParts>
__global__ __launch_bounds__(kThreads) void attend_kernel(const float* __restrict__ q, StepRows step,
                                                          Attention spec, KvLayer kv, int splits,
                                                          float* partial, float* y, Operand operand) {
  const int row = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const int split = static_cast<int>(blockIdx.z);
  const int kv_head = head / (spec.heads / kv.kv_heads);
  const int lane = threadIdx.x % 8, group = threadIdx.x / 8;
  const int position = step.positions[row];
  int begin = spec.window > 0 ? max(0, position - spec.window + 1) : 0;
  int end = spec.causal ? position + 1 : step.lengths[row];
  const int each = (end - begin + splits - 1) / splits;
  begin += split * each;
  end = min(end, begin + each);

  float query[kParts * 8], sums[kParts * 8] = {};
  const float* own = q + (static_cast<size_t>(row) * spec.heads + head) * kv.key_dim;
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int dim = p * 64 + lane * 8 + i;
      query[p * 8 + i] = dim < kv.key_dim ? own[dim] * spec.scale : 0.0f;
    }
  }
  float most = kNothing, total = 0.0f;
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
    float score = 0.0f;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      float numbers[8];
      unpack(keys[p], numbers);
#pragma unroll
      for (int i = 0; i < 8; ++i) score = fmaf(query[p * 8 + i], numbers[i], score);
    }
#pragma unroll
    for (int step_size = 4; step_size > 0; step_size /= 2)
      score += __shfl_xor_sync(0xffffffffu, score, step_size);
    if (first + group >= end) continue;
    if (spec.soft_cap > 0.0f) score = spec.soft_cap * tanhf(score / spec.soft_cap);
    const float higher = fmaxf(most, score);
    const float shrink = __expf(most - higher), weight = __expf(score - higher);
    most = higher;
    total = total * shrink + weight;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      float numbers[8];
      unpack(values[p], numbers);
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[p * 8 + i] = fmaf(sums[p * 8 + i], shrink, weight * numbers[i]);
    }
  }

  __shared__ float highest[kGroups], totals[kGroups];
  __shared__ float merged[kGroups][kParts * 64];
  if (lane == 0) {
    highest[group] = most;
    totals[group] = total;
  }
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
#pragma unroll
    for (int i = 0; i < 8; ++i) merged[group][p * 64 + lane * 8 + i] = sums[p * 8 + i];
  }
  __syncthreads();
  float top = kNothing;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) top = fmaxf(top, highest[g]);
  const bool sink = spec.sinks != nullptr && split == 0;
  if (sink) top = fmaxf(top, spec.sinks[head]);
  float sum = sink ? __expf(spec.sinks[head] - top) : 0.0f;
  float factors[kGroups];
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    factors[g] = __expf(highest[g] - top);
    sum += totals[g] * factors[g];
  }
  const size_t place = static_cast<size_t>(row) * spec.heads + head;
  float* out = partial + ((static_cast<size_t>(split) * step.rows * spec.heads) + place) * (kv.value_dim + 2);
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

__global__ void merge_kernel(const float* __restrict__ partial, int splits, int places, int heads, int dims,
                             float* y, Operand operand) {
  const int place = static_cast<int>(blockIdx.x);
  const auto part = [&](int s) { return partial + (static_cast<size_t>(s) * places + place) * (dims + 2); };
  float top = kNothing;
  for (int s = 0; s < splits; ++s) top = fmaxf(top, part(s)[dims]);
  float sum = 0.0f;
  for (int s = 0; s < splits; ++s) sum += part(s)[dims + 1] * __expf(part(s)[dims] - top);
  for (int dim = static_cast<int>(threadIdx.x); dim < dims; dim += static_cast<int>(blockDim.x)) {
    float value = 0.0f;
    for (int s = 0; s < splits; ++s) value += part(s)[dim] * __expf(part(s)[dims] - top);
    put(y, operand, place, dim, dims, heads, sum > 0.0f ? value / sum : 0.0f);
  }
}

}  // namespace

int attention_splits(const StepRows& step, int heads, int multiprocessors) {
  const int wanted = 8 * multiprocessors / (step.rows * heads), possible = (step.longest + 63) / 64;
  const int splits = wanted < possible ? wanted : possible;
  return splits < 1 ? 1 : (splits > 64 ? 64 : splits);
}

void attend(cudaStream_t stream, const float* q, const StepRows& step, const Attention& spec,
            const KvLayer& kv, int splits, float* partial, float* y, const Operand& operand) {
  const dim3 grid(step.rows, spec.heads, splits);
  const int dims = kv.key_dim > kv.value_dim ? kv.key_dim : kv.value_dim;
  switch ((dims + 63) / 64) {
    case 1:
      attend_kernel<1><<<grid, kThreads, 0, stream>>>(q, step, spec, kv, splits, partial, y, operand);
      break;
    case 2:
      attend_kernel<2><<<grid, kThreads, 0, stream>>>(q, step, spec, kv, splits, partial, y, operand);
      break;
    case 3:
      attend_kernel<3><<<grid, kThreads, 0, stream>>>(q, step, spec, kv, splits, partial, y, operand);
      break;
    default:
      attend_kernel<4><<<grid, kThreads, 0, stream>>>(q, step, spec, kv, splits, partial, y, operand);
      break;
  }
  if (splits > 1)
    merge_kernel<<<step.rows * spec.heads, 64, 0, stream>>>(partial, splits, step.rows * spec.heads,
                                                            spec.heads, kv.value_dim, y, operand);
}

}  // namespace mlxs::cuda
