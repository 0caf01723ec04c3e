// Attention over heads of more than 256 dims, as latent attention has: one key and value of a token for many
// query heads. Sixteen of the heads that share a KV head are the product's rows, so that keys and values are
// read once for all of them; a block's eight warps share each tile of tokens: for the scores they divide the
// tokens and the dims of the keys, for the sums the dims of the values. Tiles come to shared memory while the
// one before is used; few rows: the tokens are split over blocks, and the last of those to end merges them.
#include "backend/cuda/attend.cuh"
#include "backend/cuda/kv_codes.cuh"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kRows = 16;
constexpr int kMostKey = 576, kMostValue = 512;

__host__ __device__ constexpr int padded(int dims) { return (dims + 15) / 16 * 16; }
// Elements of a token's key or value in shared memory: rows start in different banks.
__host__ __device__ constexpr int stride_of(int dims) { return padded(dims) + 8; }

// Bytes of the parts of shared memory, in this order.
template <int kTokens, int kStages, bool kInt8>
struct Layout {
  int queries, open, stage, shares;  // open: a tile as bf16, of codes only; shares: of scores and weights
  int key_codes, value_codes;        // within a stage of codes; the scales come behind
  __host__ __device__ Layout(int key_dim, int value_dim)
      : queries(kRows * stride_of(key_dim) * 2),
        open(kTokens * (stride_of(key_dim) + stride_of(value_dim)) * 2),
        stage(kInt8 ? kTokens * (key_dim + value_dim + 8) : open),
        shares(kWarps / (kTokens / 16) * kRows * (kTokens + 4) * 4 + kRows * (kTokens + 8) * 2),
        key_codes(kTokens * key_dim),
        value_codes(kTokens * value_dim) {}
  __host__ __device__ int all() const { return queries + (kInt8 ? open : 0) + kStages * stage + shares; }
};

// kLatent: of the longest keys and values, which DeepSeek's latents are; else any.
template <int kTokens, int kStages, bool kInt8, bool kLatent>
__global__ __launch_bounds__(kThreads) void latent_kernel(const __grid_constant__ Attend a) {
  constexpr int kPairs = kTokens / 16, kSlices = kWarps / kPairs;     // of the scores: tokens and dims
  constexpr int kSteps = (kMostKey / 16 + kSlices - 1) / kSlices;     // of sixteen dims, of a warp
  constexpr int kColumns = (kMostValue / 16 + kWarps - 1) / kWarps;   // of sixteen dims, of a warp
  constexpr int kShare = kTokens + 4, kWeights = kTokens + 8;         // strides
  constexpr int kLanes = kThreads / kRows, kEach = kTokens / kLanes;  // of a row's scores
  MLXS_DYNAMIC_SHARED(memory, 16);
  __shared__ float tops[kRows], totals[kRows], shrinks[kRows];
  await();
  const StepRows& step = a.step;
  const Attention& spec = a.spec;
  const KvLayer& kv = a.kv;
  const int key_dim = kLatent ? kMostKey : kv.key_dim, value_dim = kLatent ? kMostValue : kv.value_dim;
  const Layout<kTokens, kStages, kInt8> layout(key_dim, value_dim);
  const int key_stride = stride_of(key_dim), value_stride = stride_of(value_dim);
  auto* const queries = reinterpret_cast<__nv_bfloat16*>(memory);
  char* const ring = memory + layout.queries + (kInt8 ? layout.open : 0);
  auto* const scores = reinterpret_cast<float*>(ring + kStages * layout.stage);  // [slices][rows][kShare]
  auto* const weights = reinterpret_cast<__nv_bfloat16*>(scores + kSlices * kRows * kShare);

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const RowPart at = row_part<kRows>(step, spec, kv);
  const int row = at.row, split = at.split, splits = a.splits, kv_head = at.kv_head;
  const int first_head = at.first_head, heads = at.heads;
  const int begin = at.begin, end = at.end;
  const int* pages = at.pages;
  const int first = begin / kPage * kPage;  // tiles begin with a page
  const int tiles = end > begin ? (end - first + kTokens - 1) / kTokens : 0;
  const int each = (tiles + splits - 1) / splits;
  const int from_tile = split * each, to_tile = min(tiles, from_tile + each);

  // Tokens behind the last one are the last one once more.
  const auto fetch = [&](int tile, int stage) {
    if (tile < to_tile) {
      char* const to = ring + stage * layout.stage;
      const int from = first + tile * kTokens;
      constexpr int kPiece = kInt8 ? 16 : 8;  // elements; keys and values of 8 bits may be copied by eights
      int own_pages[kPairs];
#pragma unroll
      for (int n = 0; n < kPairs; ++n) own_pages[n] = pages[min(from + n * kPage, end - 1) / kPage];
      const auto copy = [&](const void* all, int dims, char* where, int pitch) {
        const int pieces = (dims + kPiece - 1) / kPiece, turns = (kTokens * pieces + kThreads - 1) / kThreads;
#pragma unroll 9
        for (int turn = 0; turn < turns; ++turn) {
          const int i = static_cast<int>(threadIdx.x) + turn * kThreads;
          if (i >= kTokens * pieces) break;
          const int key = i / pieces, token = min(from + key, end - 1), dim = i % pieces * kPiece;
          const size_t page = kPairs > 1 && key >= kPage ? own_pages[kPairs - 1] : own_pages[0];
          const size_t slot = (page * kv.kv_heads + kv_head) * kPage + token % kPage;
          if constexpr (kInt8) {
            const char* code = static_cast<const char*>(all) + slot * dims + dim;
            char* const at = where + key * pitch + dim;
            if (dims % 16 == 0) {
              copy16(at, code);
            } else {
              copy8(at, code);
              if (dim + 8 < dims) copy8(at + 8, code + 8);
            }
          } else {
            copy16(where + (key * pitch + dim) * 2,
                   static_cast<const __nv_bfloat16*>(all) + slot * dims + dim);
          }
        }
      };
      if constexpr (kInt8) {
        copy(kv.keys, key_dim, to, key_dim);
        copy(kv.values, value_dim, to + layout.key_codes, value_dim);
        if (threadIdx.x < 2 * kTokens / 4) {
          const int i = static_cast<int>(threadIdx.x) % (kTokens / 4);
          const float* scales = threadIdx.x < kTokens / 4 ? kv.key_scales : kv.value_scales;
          const int page = pages[min(from + i * 4, end - 1) / kPage];
          copy16(to + layout.key_codes + layout.value_codes + threadIdx.x * 16,
                 scales + (static_cast<size_t>(page) * kv.kv_heads + kv_head) * kPage + i * 4 % kPage);
        }
      } else {
        copy(kv.keys, key_dim, to, key_stride);
        copy(kv.values, value_dim, to + kTokens * key_stride * 2, value_stride);
      }
    }
    commit_copies();
  };
  if (key_dim % 16 != 0) {  // what pads the keys is multiplied
    for (int i = static_cast<int>(threadIdx.x); i < (layout.all() - layout.shares) / 16; i += kThreads)
      reinterpret_cast<uint4*>(memory)[i] = {0, 0, 0, 0};
    __syncthreads();
  }
  if constexpr (kStages > 1) fetch(from_tile, 0);
  const float* own = a.q + (static_cast<size_t>(row) * spec.heads + first_head) * key_dim;
  const int turns = (kRows * padded(key_dim) + kThreads - 1) / kThreads;
#pragma unroll 12
  for (int turn = 0; turn < turns; ++turn) {
    const int i = static_cast<int>(threadIdx.x) + turn * kThreads;
    if (i >= kRows * padded(key_dim)) break;
    const int head = i / padded(key_dim), dim = i % padded(key_dim);
    const bool is = head < heads && dim < key_dim;
    queries[head * key_stride + dim] = __float2bfloat16(is ? own[head * key_dim + dim] * spec.scale : 0.0f);
  }
  if (threadIdx.x < kRows) {
    tops[threadIdx.x] = kNothing;
    totals[threadIdx.x] = 0.0f;
  }
  __syncthreads();
  const int pair_of = warp % kPairs, slice = warp / kPairs, steps = padded(key_dim) / 16;
  unsigned left[kSteps][4];
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    if (slice + k * kSlices < steps)
      load_matrices<false>(left[k],
                           queries + lane % 16 * key_stride + (slice + k * kSlices) * 16 + lane / 16 * 8);
  }

  const int columns = padded(value_dim) / 16;
  float sums[kColumns][2][4] = {};
  int stage = 0;
  for (int tile = from_tile; tile < to_tile; ++tile) {
    if constexpr (kStages > 1) {
      fetch(tile + 1, stage ^ 1);
      wait_copies<1>();
    } else {
      fetch(tile, 0);
      wait_copies<0>();
    }
    __syncthreads();
    char* const arrived = ring + stage * layout.stage;
    const auto* scales =
        reinterpret_cast<const float*>(arrived + layout.key_codes + layout.value_codes);  // [keys, values]
    if constexpr (kInt8) {
      char* const open = memory + layout.queries;
      const auto widen = [&](const char* from, int dims, char* to, int pitch) {
        for (int i = static_cast<int>(threadIdx.x); i < kTokens * (dims / 8); i += kThreads)
          *reinterpret_cast<uint4*>(to + (i / (dims / 8) * pitch + i % (dims / 8) * 8) * 2) =
              open_codes(*reinterpret_cast<const uint2*>(from + i * 8));
      };
      widen(arrived, key_dim, open, key_stride);
      widen(arrived + layout.key_codes, value_dim, open + kTokens * key_stride * 2, value_stride);
      __syncthreads();
    }
    const auto* keys = reinterpret_cast<const __nv_bfloat16*>(kInt8 ? memory + layout.queries : arrived);
    const __nv_bfloat16* values = keys + kTokens * key_stride;

    float products[2][4] = {};
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      if (slice + k * kSlices >= steps) continue;
      unsigned b[4];
      load_matrices<false>(b, keys + (pair_of * 16 + lane % 8 + lane / 16 * 8) * key_stride +
                                  (slice + k * kSlices) * 16 + lane / 8 % 2 * 8);
      mma(products[0], left[k], b[0], b[1]);
      mma(products[1], left[k], b[2], b[3]);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r)
        *reinterpret_cast<float2*>(
            &scores[(slice * kRows + g + 8 * r) * kShare + pair_of * 16 + n * 8 + 2 * t]) = {
            products[n][2 * r], products[n][2 * r + 1]};
    }
    __syncthreads();

    // Sixteen lanes a row.
    const int head = static_cast<int>(threadIdx.x) / kLanes,
              own_lane = static_cast<int>(threadIdx.x) % kLanes;
    float own_scores[kEach], top = kNothing;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int at = own_lane + i * kLanes, token = first + tile * kTokens + at;
      float score = 0.0f;
#pragma unroll
      for (int s = 0; s < kSlices; ++s) score += scores[(s * kRows + head) * kShare + at];
      if constexpr (kInt8) score *= scales[at];
      if (spec.soft_cap > 0.0f) score = spec.soft_cap * tanhf(score / spec.soft_cap);
      if (token < begin || token >= end) score = 2 * kNothing;
      own_scores[i] = score;
      top = fmaxf(top, score);
    }
#pragma unroll
    for (int far = kLanes / 2; far > 0; far /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, far));
    const float before = tops[head];
    top = fmaxf(top, before);
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int at = own_lane + i * kLanes, token = first + tile * kTokens + at;
      float weight = __expf(own_scores[i] - top);
      total += weight;
      if constexpr (kInt8)
        weight *= token < end ? scales[kTokens + at] : 0.0f;  // nobody wrote behind the last
      weights[head * kWeights + at] = __float2bfloat16(weight);
    }
#pragma unroll
    for (int far = kLanes / 2; far > 0; far /= 2) total += __shfl_xor_sync(0xffffffffu, total, far);
    __syncwarp();
    if (own_lane == 0) {
      const float shrink = __expf(before - top);
      tops[head] = top;
      totals[head] = totals[head] * shrink + total;
      shrinks[head] = shrink;
    }
    __syncthreads();

    const float shrink[2] = {shrinks[g], shrinks[g + 8]};
    unsigned shares[kPairs][4];
#pragma unroll
    for (int k = 0; k < kPairs; ++k)
      load_matrices<false>(shares[k], weights + lane % 16 * kWeights + k * 16 + lane / 16 * 8);
#pragma unroll
    for (int d = 0; d < kColumns; ++d) {
      const int column = warp + d * kWarps;
      if (column >= columns) continue;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) sums[d][n][c] *= shrink[c / 2];
      }
#pragma unroll
      for (int k = 0; k < kPairs; ++k) {
        unsigned b[4];
        load_matrices<true>(b, values + (k * 16 + lane % 16) * value_stride + column * 16 + lane / 16 * 8);
        mma(sums[d][0], shares[k], b[0], b[1]);
        mma(sums[d][1], shares[k], b[2], b[3]);
      }
    }
    __syncthreads();  // the tile may be filled again
    if constexpr (kStages > 1) stage ^= 1;
  }
  wait_copies<0>();

  const int places = step.rows * spec.heads, first_place = row * spec.heads + first_head;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int head = g + 8 * r;
    if (head >= heads) continue;
    float top = tops[head], total = totals[head], factor = 1.0f;
    if (spec.sinks != nullptr && split == 0) {
      const float sink = spec.sinks[first_head + head];
      const float higher = fmaxf(top, sink);
      factor = __expf(top - higher);
      total = total * factor + __expf(sink - higher);
      top = higher;
    }
    float* const out =
        splits > 1 ? part_of(a.partial, split, places, first_place + head, value_dim) : nullptr;
#pragma unroll
    for (int d = 0; d < kColumns; ++d) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int dim = (warp + d * kWarps) * 16 + n * 8 + 2 * t + c;
          if (dim >= value_dim) continue;
          const float value = sums[d][n][2 * r + c] * factor;
          if (splits == 1) {
            put_head(a.y, a.operand, first_place + head, dim, value_dim, spec.heads, share_of(value, total));
          } else {
            out[dim] = value;
          }
        }
      }
    }
    if (splits > 1 && warp == 0 && t == 0) {
      out[value_dim] = top;
      out[value_dim + 1] = total;
    }
  }
  if (splits == 1) return;
  if (!is_last_block(a.counters + row * gridDim.y + blockIdx.y, splits)) return;
  for (int r = warp; r < heads; r += kWarps)
    merge<kMostValue / 64>(a.partial, splits, places, first_place + r, spec.heads, value_dim, a.y, a.operand);
}

int blocks_a_row(int heads, const KvLayer& kv) {
  return kv.kv_heads * ((heads / kv.kv_heads + kRows - 1) / kRows);
}

template <int kTokens, int kStages, bool kInt8, bool kLatent>
bool start(cudaStream_t stream, const Attend& a) {
  constexpr auto kKernel = latent_kernel<kTokens, kStages, kInt8, kLatent>;
  const int bytes = Layout<kTokens, kStages, kInt8>(a.kv.key_dim, a.kv.value_dim).all();
  if (static_cast<size_t>(bytes) > most_shared()) return false;
  allow_shared<kKernel>(most_shared());
  launch_early(kKernel, dim3(a.step.rows, blocks_a_row(a.spec.heads, a.kv), a.splits), kThreads, bytes,
               stream, a);
  return true;
}
template <bool kInt8>
void start(cudaStream_t stream, const Attend& a) {
  const bool latent = a.kv.key_dim == kMostKey && a.kv.value_dim == kMostValue;
  if (latent && start<32, 2, kInt8, true>(stream, a)) return;
  if (!latent && start<32, 2, kInt8, false>(stream, a)) return;
  start<16, 1, kInt8, false>(stream, a);  // of other GPUs' shared memory
}

}  // namespace

bool attends_latents(const KvLayer& kv) { return kv.key_dim > 256 || kv.value_dim > 256; }

int latent_splits(const StepRows& step, int heads, const KvLayer& kv, int multiprocessors) {
  const int blocks = step.rows * blocks_a_row(heads, kv);
  if (blocks > kAttentionCounters) return 1;
  const int wanted = multiprocessors / blocks, possible = (step.longest + 63) / 64;
  return max(1, min(min(wanted, possible), 64));
}

void attend_latents(cudaStream_t stream, const float* q, const StepRows& step, const Attention& spec,
                    const KvLayer& kv, int splits, float* partial, int* counters, float* y,
                    const Operand& operand) {
  const Attend a{q, nullptr, step, spec, kv, splits, partial, counters, y, operand};
  kv.key_scales != nullptr ? start<true>(stream, a) : start<false>(stream, a);
}

}  // namespace mlxs::cuda
