// Attention of prompts on the tensor cores (mma.sync): sixteen tokens of one head are a warp's rows, and a
// block's four warps (four heads that share a KV head, or more tokens) share each tile of 64 keys and values,
// which comes page by page into shared memory while the one before is used. Scores stay in registers, with an
// online softmax.
#include <cuda_bf16.h>

#include "backend/cuda/attend.cuh"
#include "backend/cuda/kv_codes.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kKeys = 64;                                      // of a tile
constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = 16;  // tokens of a warp

// Of a tile of keys and values with codes of 8 bits, as it arrives.
template <int kDims>
constexpr int kArrivedBytes = 2 * kKeys * (kDims + 4);

// heads: of a block, 1, 2 or 4; it has 4 / heads times sixteen tokens.
template <int kDims, bool kInt8>
__global__ __launch_bounds__(kThreads) void tiles_kernel(const float* q,
                                                         const __grid_constant__ StepRows step,
                                                         const __grid_constant__ Attention spec,
                                                         const __grid_constant__ KvLayer kv, int heads,
                                                         float* y, const __grid_constant__ Operand operand) {
  await();
  constexpr int kStride = kDims + 8;  // rows start in different banks
  constexpr int kTileBytes = kKeys * kStride * 2;
  // [2][keys, values]; of 8 bits: one such, then [2][keys, values, scales] as they arrive
  MLXS_DYNAMIC_SHARED(memory, 16);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const int2 tile = reinterpret_cast<const int2*>(step.tiles)[blockIdx.x];  // first row, rows
  const int tokens = kRows * kWarps / heads;
  const int from = static_cast<int>(blockIdx.z) * tokens;
  if (from >= tile.y) return;
  const int head = static_cast<int>(blockIdx.y) * heads + warp % heads;
  const int kv_head = head / (spec.heads / kv.kv_heads);
  const int own = tile.x + from + warp / heads * kRows;          // the warp's first row
  const int last_row = tile.x + min(from + tokens, tile.y) - 1;  // of the block
  const int first_position = step.positions[tile.x + from];
  const int end = spec.causal ? step.positions[last_row] + 1 : step.lengths[last_row];
  // With the first page that is seen: those before it hold anything.
  const int begin = spec.window > 0 ? max(0, first_position - spec.window + 1) / kPage * kPage : 0;
  const int* pages = step.pages + step.first_page[tile.x];

  char* const arrived = memory + 2 * kTileBytes;  // of 8 bits
  const auto fetch = [&](int first, int stage) {
    if constexpr (kInt8) {
      char* to = arrived + stage * kArrivedBytes<kDims>;
      for (int i = static_cast<int>(threadIdx.x); i < kKeys * (kDims / 16); i += kThreads) {
        const int key = i / (kDims / 16), token = min(first + key, end - 1);
        const size_t slot =
            (static_cast<size_t>(pages[token / kPage]) * kv.kv_heads + kv_head) * kPage + token % kPage;
        const size_t from_code = slot * kDims + i % (kDims / 16) * 16;
        copy16(to + i * 16, static_cast<const char*>(kv.keys) + from_code);
        copy16(to + kKeys * kDims + i * 16, static_cast<const char*>(kv.values) + from_code);
      }
      if (threadIdx.x < 2 * kKeys / 4) {  // a tile begins with a page
        const int i = static_cast<int>(threadIdx.x) % (kKeys / 4);
        const float* scales = threadIdx.x < kKeys / 4 ? kv.key_scales : kv.value_scales;
        const int page = pages[min(first + i * 4, end - 1) / kPage];
        copy16(to + 2 * kKeys * kDims + threadIdx.x * 16,
               scales + (static_cast<size_t>(page) * kv.kv_heads + kv_head) * kPage + i * 4 % kPage);
      }
    } else {
      char* to = memory + stage * 2 * kTileBytes;
      for (int i = static_cast<int>(threadIdx.x); i < kKeys * (kDims / 8); i += kThreads) {
        const int key = i / (kDims / 8), chunk = i % (kDims / 8), token = min(first + key, end - 1);
        const size_t slot =
            (static_cast<size_t>(pages[token / kPage]) * kv.kv_heads + kv_head) * kPage + token % kPage;
        char* at = to + (key * kStride + chunk * 8) * 2;
        copy16(at, static_cast<const __nv_bfloat16*>(kv.keys) + slot * kDims + chunk * 8);
        copy16(at + kTileBytes, static_cast<const __nv_bfloat16*>(kv.values) + slot * kDims + chunk * 8);
      }
    }
    commit_copies();
  };
  fetch(begin, 0);

  // Rows g and g + 8 of the warp: where they are and how far they see.
  int positions[2], rows[2];
  unsigned queries[kDims / 16][4];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    rows[r] = own + g + 8 * r;
    const int row = min(rows[r], last_row);
    positions[r] = step.positions[row];
    const float* from_q = q + (static_cast<size_t>(row) * spec.heads + head) * kDims + 2 * t;
#pragma unroll
    for (int k = 0; k < kDims / 16; ++k) {
      const float2 low = *reinterpret_cast<const float2*>(from_q + k * 16),
                   high = *reinterpret_cast<const float2*>(from_q + k * 16 + 8);
      queries[k][r] = pair(low.x * spec.scale, low.y * spec.scale);
      queries[k][2 + r] = pair(high.x * spec.scale, high.y * spec.scale);
    }
  }

  float sums[kDims / 8][4] = {}, most[2] = {kNothing, kNothing}, total[2] = {};
  int stage = 0;
  for (int first = begin; first < end; first += kKeys, stage ^= 1) {
    if (first + kKeys < end) {
      fetch(first + kKeys, stage ^ 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    const char* const codes = arrived + stage * kArrivedBytes<kDims>;
    const auto* scales = reinterpret_cast<const float*>(codes + 2 * kKeys * kDims);  // [keys, values][tokens]
    if constexpr (kInt8) {
      for (int i = static_cast<int>(threadIdx.x); i < 2 * kKeys * (kDims / 8); i += kThreads)
        *reinterpret_cast<uint4*>(memory + (i / (kDims / 8) * kStride + i % (kDims / 8) * 8) * 2) =
            open_codes(*reinterpret_cast<const uint2*>(codes + i * 8));
      __syncthreads();
    }
    const char* const open = memory + (kInt8 ? 0 : stage * 2 * kTileBytes);
    const auto* keys = reinterpret_cast<const __nv_bfloat16*>(open);
    const auto* values = reinterpret_cast<const __nv_bfloat16*>(open + kTileBytes);

    float scores[kKeys / 8][4] = {};
#pragma unroll
    for (int k = 0; k < kDims / 16; ++k) {
#pragma unroll
      for (int n = 0; n < kKeys / 8; n += 2) {  // sixteen keys: two columns of the product
        unsigned b[4];
        load_matrices<false>(b,
                             keys + (n * 8 + lane % 8 + lane / 16 * 8) * kStride + k * 16 + lane / 8 % 2 * 8);
        mma(scores[n], queries[k], b[0], b[1]);
        mma(scores[n + 1], queries[k], b[2], b[3]);
      }
    }
    float highest[2] = {most[0], most[1]};
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int r = c / 2, token = first + n * 8 + t * 2 + c % 2;
        float& score = scores[n][c];
        if constexpr (kInt8) score *= scales[token - first];
        if (spec.soft_cap > 0.0f) score = spec.soft_cap * tanhf(score / spec.soft_cap);
        const bool hidden = (spec.causal ? token > positions[r] : token >= end) ||
                            (spec.window > 0 && token <= positions[r] - spec.window);
        if (hidden) score = 2 * kNothing;
        highest[r] = fmaxf(highest[r], score);
      }
    }
    float shrink[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffu, highest[r], 1));
      highest[r] = fmaxf(highest[r], __shfl_xor_sync(0xffffffffu, highest[r], 2));
      shrink[r] = __expf(most[r] - highest[r]);
      most[r] = highest[r];
      total[r] *= shrink[r];
    }
#pragma unroll
    for (int d = 0; d < kDims / 8; ++d) {
#pragma unroll
      for (int c = 0; c < 4; ++c) sums[d][c] *= shrink[c / 2];
    }
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        scores[n][c] = __expf(scores[n][c] - most[c / 2]);
        total[c / 2] += scores[n][c];
        if constexpr (kInt8) {
          const int key = n * 8 + t * 2 + c % 2;
          scores[n][c] *= first + key < end ? scales[kKeys + key] : 0.0f;  // nobody wrote behind the last
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      const unsigned weights[4] = {
          pair(scores[2 * k][0], scores[2 * k][1]), pair(scores[2 * k][2], scores[2 * k][3]),
          pair(scores[2 * k + 1][0], scores[2 * k + 1][1]), pair(scores[2 * k + 1][2], scores[2 * k + 1][3])};
#pragma unroll
      for (int d = 0; d < kDims / 8; d += 2) {
        unsigned b[4];
        load_matrices<true>(b, values + (k * 16 + lane % 16) * kStride + d * 8 + lane / 16 * 8);
        mma(sums[d], weights, b[0], b[1]);
        mma(sums[d + 1], weights, b[2], b[3]);
      }
    }
    __syncthreads();  // the stage may be filled again
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
    if (spec.sinks != nullptr) {
      const float sink = spec.sinks[head], top = fmaxf(most[r], sink);
      total[r] = total[r] * __expf(most[r] - top) + __expf(sink - top);
      const float down = __expf(most[r] - top);
#pragma unroll
      for (int d = 0; d < kDims / 8; ++d) {
        sums[d][2 * r] *= down;
        sums[d][2 * r + 1] *= down;
      }
    }
    const float factor = share_of(1.0f, total[r]);
    put_columns<kDims>(y, operand, rows[r], head * kDims, spec.heads * kDims, rows[r] <= last_row,
                       [&](int d, int i) { return sums[d][2 * r + i] * factor; });
  }
}

template <int kDims, bool kInt8>
void start(cudaStream_t stream, const float* q, const StepRows& step, const Attention& spec,
           const KvLayer& kv, float* y, const Operand& operand) {
  const int group = spec.heads / kv.kv_heads, heads = group % 4 == 0 ? 4 : group % 2 == 0 ? 2 : 1;
  constexpr int kTile = 2 * kKeys * (kDims + 8) * 2,
                kBytes = kInt8 ? kTile + 2 * kArrivedBytes<kDims> : 2 * kTile;
  constexpr auto kKernel = tiles_kernel<kDims, kInt8>;
  allow_shared<kKernel>(kBytes);
  const dim3 grid(step.num_tiles, spec.heads / heads, kTileRows * heads / (kRows * kWarps));
  launch_early(kKernel, grid, kThreads, kBytes, stream, q, step, spec, kv, heads, y, operand);
}

}  // namespace

bool attends_in_tiles(const StepRows& step, int heads, const KvLayer& kv, int multiprocessors, bool hopper) {
  if (kv.key_dim != kv.value_dim || (kv.key_dim != 64 && kv.key_dim != 128 && !(hopper && attends_wide(kv))))
    return false;
  const bool full = heads / kv.kv_heads % kWarps == 0;  // else warps would have nothing to do
  return step.rows >= 2 * step.num_tiles || (full && step.rows * heads / kWarps >= 2 * multiprocessors);
}

void attend_tiles(cudaStream_t stream, const float* q, const StepRows& step, const Attention& spec,
                  const KvLayer& kv, float* y, const Operand& operand) {
  const auto run = [&](auto start_it) { start_it(stream, q, step, spec, kv, y, operand); };
  const bool int8 = kv.key_scales != nullptr;
  if (kv.key_dim == 64) return int8 ? run(start<64, true>) : run(start<64, false>);
  int8 ? run(start<128, true>) : run(start<128, false>);
}

}  // namespace mlxs::cuda
