// Attention of rows that are alone in their sequence (decoding), on the tensor cores: the heads that share a
// KV head are the product's rows, so that keys and values are read once for all of them. A warp takes a page
// of sixteen tokens at a time, the next ones on their way to shared memory; the warps of a block, and the
// blocks that split a row's pages, each have an online softmax of their own and are merged at the end: up to
// eight blocks through each other's shared memory, more by the last one. The kernel also turns the row's
// heads and puts its key and value into their page.
#include "backend/cuda/attend.cuh"
#include "backend/cuda/head.cuh"
#include "backend/cuda/kv_codes.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = 16;

// Of a warp's page of keys and values in shared memory: how it arrives, and with codes of 8 bits once more as
// bf16.
template <int kDims, bool kInt8>
constexpr int kStageBytes = kInt8 ? 2 * kPage * (kDims + 4) : 2 * kPage * (kDims + 8) * 2;
template <int kDims, bool kInt8>
constexpr int kOpenBytes = kInt8 ? 2 * kPage * (kDims + 8) * 2 : 0;

// kStages: pages of a warp that are in shared memory or on their way there.
template <int kDims, int kStages, bool kInt8>
__global__ __launch_bounds__(kThreads) void groups_kernel(const __grid_constant__ Attend a) {
  constexpr int kStride = kDims + 8;  // rows start in different banks
  constexpr int kHalf = kPage * kStride, kWide = kDims + 4;
  constexpr int kStage = kStageBytes<kDims, kInt8>, kCodes = kPage * kDims;
  using Element = KvElement<kInt8>;
  MLXS_DYNAMIC_SHARED(memory, 16);  // [warps]{[stages][keys, values, scales], open}; then the warps' sums
  __shared__ __align__(16) __nv_bfloat16 queries[kRows][kStride];
  __shared__ __align__(16) __nv_bfloat16 fresh[2][kDims];  // the row's own key and value, or their codes
  __shared__ float fresh_scales[2];
  __shared__ float vectors[kWarps][kDims];
  __shared__ float highest[kWarps][kRows], totals[kWarps][kRows], tops[kRows], sums_of[kRows];
  const StepRows& step = a.step;
  const Attention& spec = a.spec;
  const KvLayer& kv = a.kv;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  float query_gains[kDims / 32], key_gains[kDims / 32];
#pragma unroll
  for (int i = 0; i < kDims / 32; ++i) {
    query_gains[i] = spec.norm_query ? spec.query_norm.gain[lane + 32 * i] + spec.query_norm.offset : 1.0f;
    key_gains[i] = spec.norm_key ? spec.key_norm.gain[lane + 32 * i] + spec.key_norm.offset : 1.0f;
  }
  const RowPart at = row_part<kRows>(step, spec, kv);
  const int row = at.row, split = at.split, splits = a.splits, kv_head = at.kv_head, part = at.part;
  const int first_head = at.first_head, heads = at.heads, position = at.position;
  const int begin = at.begin, end = at.end;
  const int* pages = at.pages;
  const int all_pages = end > begin ? (end - 1) / kPage + 1 - begin / kPage : 0;
  const int each = (all_pages + splits - 1) / splits;
  const int from_page = begin / kPage + split * each;
  const int to_page = min(begin / kPage + all_pages, from_page + each);

  char* const ring = memory + warp * (kStages * kStage + kOpenBytes<kDims, kInt8>);
  int fetched = from_page + warp, fetch_stage = 0;
  const auto fetch = [&] {
    if (fetched < to_page) {
      const size_t page = static_cast<size_t>(pages[fetched]) * kv.kv_heads + kv_head;
      const auto* keys = static_cast<const Element*>(kv.keys) + page * kCodes;
      const auto* values = static_cast<const Element*>(kv.values) + page * kCodes;
      char* const to = ring + fetch_stage * kStage;
      if constexpr (kInt8) {
#pragma unroll
        for (int n = 0; n < kCodes / 16 / 32; ++n) {
          const int i = (lane + 32 * n) * 16;
          copy16(to + i, keys + i);
          copy16(to + kCodes + i, values + i);
        }
        if (lane < 2 * kPage / 4) {
          const float* scales = lane < kPage / 4 ? kv.key_scales : kv.value_scales;
          copy16(to + 2 * kCodes + lane * 16, scales + page * kPage + lane % (kPage / 4) * 4);
        }
      } else {
#pragma unroll
        for (int n = 0; n < kCodes / 8 / 32; ++n) {
          const int i = lane + 32 * n, place = i / (kDims / 8) * kStride + i % (kDims / 8) * 8;
          copy16(to + place * 2, keys + i * 8);
          copy16(to + (kHalf + place) * 2, values + i * 8);
        }
      }
    }
    commit_copies();
    fetched += kWarps;
    fetch_stage = fetch_stage + 1 == kStages ? 0 : fetch_stage + 1;
  };
  // Which pages, and what they held before this step, is there before the kernel before has ended.
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) fetch();
  await();

  // The queries, and the new key and value.
  const int query_columns = spec.heads * kDims, key_columns = kv.kv_heads * kDims;
  const float* own = a.qkv + static_cast<size_t>(row) * (query_columns + 2 * key_columns);
  const int own_page = position >= 0 ? position / kPage : -1;
  const bool here = own_page >= from_page && own_page < to_page;
  // Everything is read before anything is used.
  constexpr int kOwn = kDims / 32, kHeadsEach = kRows / kWarps;
  float raw[kHeadsEach][kOwn], fresh_raw[kOwn];
  const bool is_key = warp == 0, adds = here && warp < 2;  // two warps have the row's key and value
#pragma unroll
  for (int n = 0; n < kHeadsEach; ++n) {
    const int v = warp + n * kWarps;
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
      raw[n][i] = v < heads ? own[(first_head + v) * kDims + lane + 32 * i] : 0.0f;
  }
  const float* fresh_from = own + query_columns + (is_key ? 0 : key_columns) + kv_head * kDims;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) fresh_raw[i] = adds ? fresh_from[lane + 32 * i] : 0.0f;
  float2 turns[kOwn / 2];
  const int half = spec.rotation.dims / 2;
#pragma unroll
  for (int i = 0; i < kOwn / 2; ++i) {
    turns[i] = {1.0f, 0.0f};
    if (lane + 32 * i < half)
      turns[i] =
          static_cast<const float2*>(spec.rotation.table)[static_cast<size_t>(row) * half + lane + 32 * i];
  }
  float factors[kHeadsEach + 1];  // of the heads, then of the key
  if (spec.norm_query || spec.norm_key)
    norm_factors(raw, fresh_raw, spec.query_norm.epsilon, spec.key_norm.epsilon, factors);
  float* vector = vectors[warp];
#pragma unroll
  for (int n = 0; n < kHeadsEach; ++n) {
    const int v = warp + n * kWarps;
    if (v < heads) {
      if (spec.norm_query) scale_head(raw[n], factors[n], query_gains);
      rotate_head(raw[n], spec.rotation, turns, vector);
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
      queries[v][lane + 32 * i] = __float2bfloat16(v < heads ? raw[n][i] * spec.scale : 0.0f);
  }
  if (adds) {
    if (is_key) {
      if (spec.norm_key) scale_head(fresh_raw, factors[kHeadsEach], key_gains);
      rotate_head(fresh_raw, spec.rotation, turns, vector);
    }
    const size_t slot =
        (static_cast<size_t>(pages[own_page]) * kv.kv_heads + kv_head) * kPage + position % kPage;
    auto* to = static_cast<Element*>(is_key ? kv.keys : kv.values) + slot * kDims;
    float inverse = 0.0f;
    if constexpr (kInt8) {
      unsigned largest = 0;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) largest = max(largest, magnitude(fresh_raw[i]));
      const float scale = kv_scale(largest);
      inverse = inverse_scale(scale);
      if (lane == 0) {
        fresh_scales[is_key ? 0 : 1] = scale;
        if (part == 0) (is_key ? kv.key_scales : kv.value_scales)[slot] = scale;
      }
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int dim = lane + 32 * i;
      const Element value = kv_element<kInt8>(fresh_raw[i], inverse);
      if constexpr (kInt8) {
        fresh[is_key ? 0 : 1][dim] = __float2bfloat16(static_cast<float>(value));
      } else {
        fresh[is_key ? 0 : 1][dim] = value;
      }
      if (part == 0) to[dim] = value;
    }
  }
  __syncthreads();
  unsigned left[kDims / 16][4];
#pragma unroll
  for (int k = 0; k < kDims / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      left[k][i] = *reinterpret_cast<const unsigned*>(&queries[g + i % 2 * 8][k * 16 + i / 2 * 8 + 2 * t]);
  }

  float sums[kDims / 8][4] = {}, most[2] = {kNothing, kNothing}, total[2] = {};
  int stage = 0;
  for (int page = from_page + warp; page < to_page; page += kWarps) {
    wait_copies<kStages - 2>();
    __syncwarp();  // the page is here for all lanes, and all have read the one before
    char* const arrived = ring + stage * kStage;
    auto* keys = reinterpret_cast<__nv_bfloat16*>(kInt8 ? ring + kStages * kStage : arrived);
    const __nv_bfloat16* values = keys + kHalf;
    auto* scales = reinterpret_cast<float*>(arrived + 2 * kCodes);  // [keys, values][tokens]
    if constexpr (kInt8) {
#pragma unroll
      for (int n = 0; n < 2 * kCodes / 8 / 32; ++n) {
        const int i = lane + 32 * n, place = i / (kDims / 8) * kStride + i % (kDims / 8) * 8;
        *reinterpret_cast<uint4*>(keys + place) =
            open_codes(*reinterpret_cast<const uint2*>(arrived + i * 8));
      }
      if (page == own_page && lane < 2) scales[lane * kPage + position % kPage] = fresh_scales[lane];
      __syncwarp();
    }
    if (page == own_page) {
      for (int i = lane; i < 2 * kDims; i += 32)
        keys[i / kDims * kHalf + position % kPage * kStride + i % kDims] = fresh[i / kDims][i % kDims];
      __syncwarp();
    }
    if (!kInt8 &&
        page == (end - 1) / kPage) {  // nobody wrote behind the last token: no number times 0 may be NaN
      const int first = (end - 1) % kPage + 1;
      for (int i = lane; i < (kPage - first) * (kDims / 2); i += 32)
        reinterpret_cast<unsigned*>(keys + kHalf + (first + i / (kDims / 2)) * kStride)[i % (kDims / 2)] = 0;
      __syncwarp();
    }
    fetch();
    stage = stage + 1 == kStages ? 0 : stage + 1;
    float scores[2][4] = {};
#pragma unroll
    for (int k = 0; k < kDims / 16; ++k) {
      unsigned b[4];
      load_matrices<false>(b, keys + (lane % 8 + lane / 16 * 8) * kStride + k * 16 + lane / 8 % 2 * 8);
      mma(scores[0], left[k], b[0], b[1]);
      mma(scores[1], left[k], b[2], b[3]);
    }
    float top[2] = {most[0], most[1]};
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int token = page * kPage + n * 8 + t * 2 + c % 2;
        float& score = scores[n][c];
        if constexpr (kInt8) score *= scales[token % kPage];
        if (spec.soft_cap > 0.0f) score = spec.soft_cap * tanhf(score / spec.soft_cap);
        if (token < begin || token >= end) score = 2 * kNothing;
        top[c / 2] = fmaxf(top[c / 2], score);
      }
    }
    float shrink[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffffu, top[r], 2));
      shrink[r] = __expf(most[r] - top[r]);
      most[r] = top[r];
      total[r] *= shrink[r];
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        scores[n][c] = __expf(scores[n][c] - most[c / 2]);
        total[c / 2] += scores[n][c];
        if constexpr (kInt8) {
          const int token = page * kPage + n * 8 + t * 2 + c % 2;
          scores[n][c] *= token < end ? scales[kPage + token % kPage] : 0.0f;  // nobody wrote behind the last
        }
      }
    }
    const unsigned weights[4] = {pair(scores[0][0], scores[0][1]), pair(scores[0][2], scores[0][3]),
                                 pair(scores[1][0], scores[1][1]), pair(scores[1][2], scores[1][3])};
#pragma unroll
    for (int d = 0; d < kDims / 8; d += 2) {
      unsigned b[4];
      load_matrices<true>(b, values + (lane % 16) * kStride + d * 8 + lane / 16 * 8);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int c = 0; c < 4; ++c) sums[d + i][c] *= shrink[c / 2];
        mma(sums[d + i], weights, b[2 * i], b[2 * i + 1]);
      }
    }
  }
  wait_copies<0>();

  // The warps together.
  auto* shares = reinterpret_cast<float*>(memory);  // [warps][rows][kWide]
  __syncthreads();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
    if (t == 0) {
      highest[warp][g + 8 * r] = most[r];
      totals[warp][g + 8 * r] = total[r];
    }
#pragma unroll
    for (int d = 0; d < kDims / 8; ++d)
      *reinterpret_cast<float2*>(&shares[(warp * kRows + g + 8 * r) * kWide + d * 8 + 2 * t]) = {
          sums[d][2 * r], sums[d][2 * r + 1]};
  }
  __syncthreads();
  if (threadIdx.x < heads) {
    const int r = static_cast<int>(threadIdx.x);
    const bool sink = spec.sinks != nullptr && split == 0;
    float top = sink ? spec.sinks[first_head + r] : kNothing;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, highest[w][r]);
    float sum = sink ? __expf(spec.sinks[first_head + r] - top) : 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float factor = __expf(highest[w][r] - top);
      sum += totals[w][r] * factor;
      highest[w][r] = factor;
    }
    tops[r] = top;
    sums_of[r] = sum;
  }
  __syncthreads();
  const int places = step.rows * spec.heads, first_place = row * spec.heads + first_head;
  for (int i = static_cast<int>(threadIdx.x); i < heads * kDims; i += kThreads) {
    const int r = i / kDims, dim = i % kDims;
    float value = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) value += shares[(w * kRows + r) * kWide + dim] * highest[w][r];
    if (a.joined) {
      shares[r * kWide + dim] = value;
    } else if (splits == 1) {
      put_head(a.y, a.operand, first_place + r, dim, kDims, spec.heads, share_of(value, sums_of[r]));
    } else {
      part_of(a.partial, split, places, first_place + r, kDims)[dim] = value;
    }
  }
  if (splits == 1) return;
#if defined(MLXS_HAS_CLUSTERS)
  if (a.joined) {
    merge_in_cluster<kDims, kWide>(a, shares, tops, sums_of, heads, first_place);
    return;
  }
#endif
  if (threadIdx.x < heads) {
    float* out = part_of(a.partial, split, places, first_place + static_cast<int>(threadIdx.x), kDims);
    out[kDims] = tops[threadIdx.x];
    out[kDims + 1] = sums_of[threadIdx.x];
  }
  if (!is_last_block(a.counters + row * gridDim.y + blockIdx.y, splits)) return;
  for (int r = warp; r < heads; r += kWarps)
    merge<kDims / 64>(a.partial, splits, places, first_place + r, spec.heads, kDims, a.y, a.operand);
}

int blocks_of(const StepRows& step, int heads, const KvLayer& kv) {
  return step.rows * kv.kv_heads * ((heads / kv.kv_heads + kRows - 1) / kRows);
}

template <int kDims>
constexpr int kSums = kWarps * kRows * (kDims + 4) * 4;  // bytes
template <int kDims, int kStages, bool kInt8>
constexpr int kRing = kWarps * (kStages * kStageBytes<kDims, kInt8> + kOpenBytes<kDims, kInt8>);

template <int kDims, int kStages, bool kInt8>
void start(cudaStream_t stream, const Attend& a) {
  constexpr int kOwn = kRing<kDims, kStages, kInt8>, kBytes = kOwn > kSums<kDims> ? kOwn : kSums<kDims>;
  constexpr auto kKernel = groups_kernel<kDims, kStages, kInt8>;
  allow_shared<kKernel>(kBytes);
  const dim3 grid(a.step.rows, blocks_of(a.step, a.spec.heads, a.kv) / a.step.rows, a.splits);
  launch_cluster(kKernel, a.joined ? a.splits : 1, grid, kThreads, kBytes, stream, a);
}

}  // namespace

bool attends_in_groups(const KvLayer& kv) {
  return kv.key_dim == kv.value_dim && (kv.key_dim == 64 || kv.key_dim == 128);
}

int group_splits(const StepRows& step, int heads, const KvLayer& kv, int multiprocessors) {
  const int blocks = blocks_of(step, heads, kv);
  if (blocks > kAttentionCounters) return 1;
  // Two pages a warp at least (what `longest` is rounded up to counts, too), and no more blocks than two of
  // them have room beside each other.
  const int wanted = 2 * multiprocessors / blocks, possible = (step.longest + 127) / 128;
  const int splits = max(1, min(min(wanted, possible), 64));
  // Clusters that would fill the GPU wait for places side by side.
  const int beside = multiprocessors / blocks;
  return can_cluster() && possible <= kMostSplitsTogether && beside >= 2 ? min(splits, beside) : splits;
}

void attend_groups(cudaStream_t stream, const float* qkv, const StepRows& step, const Attention& spec,
                   const KvLayer& kv, int splits, float* partial, int* counters, float* y,
                   const Operand& operand, int multiprocessors) {
  Attend a{nullptr, qkv, step, spec, kv, splits, partial, counters, y, operand};
  a.joined = can_cluster() && splits > 1 && splits <= kMostSplitsTogether &&
             (splits == 2 || splits * blocks_of(step, spec.heads, kv) <= multiprocessors);
  if (kv.key_scales != nullptr) {
    if (kv.key_dim == 64) return start<64, 3, true>(stream, a);
    return start<128, 3, true>(stream, a);
  }
  if (kv.key_dim == 64) return start<64, 3, false>(stream, a);
  if (kRing<128, 3, false> <= most_shared()) return start<128, 3, false>(stream, a);
  start<128, 2, false>(stream, a);
}

}  // namespace mlxs::cuda
