// Attention of prompts on Hopper's tensor cores (wgmma). Each multiprocessor has one block, which takes items
// of 128 rows, tokens times heads that share a KV head, one after the other; each of two warpgroups has 64 of
// them, their queries, scores, weights and sums all in registers. Keys and values come through a ring
// (attend_ring.cuh) that the block's first warps fill, the next item's while one ends. While the products of
// a tile's weights and values run, the next tile's scores become weights. Included by attend_wide_*.cu, one
// for each size of heads.
#pragma once

#include "backend/cuda/attend_ring.cuh"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {

constexpr float kLog2e = 1.44269504f;

#if defined(MLXS_HAS_WGMMA)

// A warpgroup's part of an item, half 0 or 1: rows or, of large heads, dims of the result. place: of its
// tiles.
template <int kDims, int kKeys, bool kInt8, bool kCap>
__device__ void attend_rows(const PromptRing<kDims, kKeys>& ring, const Prompts& a, const PromptItem& item,
                            int half, Place<PromptRing<kDims, kKeys>::kStages>& place) {
  constexpr int kBlock = kDims / 64 * 1024;  // of eight tokens
  constexpr bool kSplitsDims = PromptRing<kDims, kKeys>::kRows == 64;
  constexpr int kOwn = kSplitsDims ? kDims / 2 : kDims;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, g = lane / 4, t = lane % 4;
  const Attention& spec = a.spec;
  const int rows_from = kSplitsDims ? 0 : half * 64, dims_from = kSplitsDims ? half * kOwn : 0;
  const int first_row = rows_from + warp * 16 + g;
  // The warpgroup's tokens, and the tiles that they see.
  const int first_token = item.from + (rows_from >> a.head_shift),
            last_token = min(item.from + ((rows_from + 63) >> a.head_shift), item.tile.y - 1);
  const int low = spec.window > 0 ? max(0, item.first_position + first_token - spec.window + 1) : 0,
            high = spec.causal ? item.first_position + last_token + 1 : item.end;
  const bool has_rows = first_token < item.tile.y;
  const int first_tile = has_rows ? (low - item.begin) / kKeys : item.tiles,
            end_tile = has_rows ? (high - item.begin + kKeys - 1) / kKeys : item.tiles;

  unsigned queries[kDims / 16][4];
  const float scale = spec.scale * (kCap ? 1.0f / spec.soft_cap : kLog2e);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const auto* own = reinterpret_cast<const float*>(ring.query(first_row + 8 * r)) + 2 * t;
#pragma unroll
    for (int k = 0; k < kDims / 16; ++k) {
      const float2 left = *reinterpret_cast<const float2*>(own + k * 16),
                   right = *reinterpret_cast<const float2*>(own + k * 16 + 8);
      queries[k][r] = pair(left.x * scale, left.y * scale);
      queries[k][2 + r] = pair(right.x * scale, right.y * scale);
    }
  }
  __syncwarp();
  if (lane == 0) arrive(ring.small.queries[1]);
  const auto token_of = [&](int r) { return item.from + ((first_row + 8 * r) >> a.head_shift); };
  const int positions[2] = {item.first_position + min(token_of(0), item.tile.y - 1),
                            item.first_position + min(token_of(1), item.tile.y - 1)};

  float sums[kOwn / 2] = {}, scores[kKeys / 2], most[2] = {kNothing, kNothing}, total[2] = {}, shrink[2];
  unsigned weights[kKeys / 16][4];
  const auto release = [&](int stage, int which) {
    __syncwarp();
    if (kInt8 || lane == 0) arrive(ring.empty(stage, which));  // each has read scales
  };
  const auto start_scores = [&](int stage) {
    const auto keys = swizzled_columns(shared_address(ring.tile(stage, 0)), kBlock);
    begin_products();
    multiply_as<kKeys, true, false>(scores, queries[0], keys);
#pragma unroll
    for (int k = 1; k < kDims / 16; ++k)
      multiply_as<kKeys, false, false>(scores, queries[k], further(keys, k / 4 * 1024 + k % 4 * 32));
    commit_products();
  };
  const auto start_sums = [&](int stage) {
    const auto values =
        swizzled_lines(shared_address(ring.tile(stage, 1) + dims_from / 64 * 1024), 1024, kBlock);
    begin_products();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k)
      multiply_as<kOwn, false, true>(sums, weights[k], further(values, k * 2 * kBlock));
    commit_products();
  };
  // Of codes of 8 bits: each token's scale.
  const auto rescale = [&](const float* scales) {
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
      const float2 two = *reinterpret_cast<const float2*>(scales + 2 * t + n * 8);
#pragma unroll
      for (int c = 0; c < 4; ++c) scores[4 * n + c] *= c % 2 == 0 ? two.x : two.y;
    }
  };
  // Scores to weights that are not rounded yet.
  const auto weigh = [&](int j, int stage) {
    settle(scores);
    const int first = item.begin + j * kKeys;
    if constexpr (kInt8) rescale(ring.scale(stage, 0));
    if constexpr (kCap) {
      const float cap = spec.soft_cap * kLog2e;
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) scores[i] = fast_tanh(scores[i]) * cap;
    }
    // Only tiles at an edge of what some row sees have anything to hide.
    const int last = first + kKeys - 1;
    const bool ends = spec.causal ? last > item.first_position + first_token : last >= item.end,
               begins = spec.window > 0 && first <= item.first_position + last_token - spec.window;
    if (ends || begins) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int end = (spec.causal ? positions[r] + 1 : item.end) - first - 2 * t,
                  begin = (spec.window > 0 ? positions[r] - spec.window + 1 : 0) - first - 2 * t;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 2; ++c) {
            const int key = n * 8 + c;
            if (key >= end || key < begin) scores[4 * n + 2 * r + c] = 2 * kNothing;
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float highest = most[r];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
        highest = fmaxf(highest, fmaxf(scores[4 * n + 2 * r], scores[4 * n + 2 * r + 1]));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, 2));
      shrink[r] = fast_exp2(most[r] - highest);
      most[r] = highest;
      float sum = total[r] * shrink[r];
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          float& score = scores[4 * n + 2 * r + c];
          score = fast_exp2(score - highest);
          sum += score;
        }
      }
      total[r] = sum;
    }
  };
  const auto round = [&](int stage) {
    if constexpr (kInt8) rescale(ring.scale(stage, 1));
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      const float* own = scores + 8 * k;
      weights[k][0] = pair(own[0], own[1]);
      weights[k][1] = pair(own[2], own[3]);
      weights[k][2] = pair(own[4], own[5]);
      weights[k][3] = pair(own[6], own[7]);
    }
  };
  // Values of a tile: nobody wrote what is behind the last token, and even a weight of zero would let it in.
  const auto await_values = [&](int j, int stage, int turn) {
    wait(ring.full(stage, 1), turn);
    if constexpr (!kInt8) {
      const int valid = item.end - (item.begin + j * kKeys);
      if (valid < kKeys) {
        for (int i = static_cast<int>(threadIdx.x) % 128; i < (kKeys - valid) * (kDims / 8); i += 128) {
          const int token = valid + i / (kDims / 8), chunk = i % (kDims / 8);
          *reinterpret_cast<uint4*>(ring.tile(stage, 1) + token / 8 * kBlock + chunk / 8 * 1024 +
                                    token % 8 * 128 + chunk % 8 * 16) = uint4{};
        }
        show_copies_to_products();
        sync_warpgroup(1 + half);
      }
    }
  };

  // Keys of a tile are used with the values of the tile before.
  auto old = place;
  const auto step = [&] {
    old = place;
    place.step();
  };
  // The warpgroups start their products in turns: one's run while the other weighs.
  const auto take_turn = [&] { await_warpgroup(3 + half); };
  const auto give_turn = [&] { let_warpgroup(4 - half); };
  const auto pass = [&] {
    take_turn();
    give_turn();
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      wait(ring.full(place.stage, which), place.turn);
      release(place.stage, which);
    }
    step();
  };
  for (int j = 0; j < first_tile; ++j) pass();
  if (first_tile < end_tile) {
    wait(ring.full(place.stage, 0), place.turn);
    take_turn();
    start_scores(place.stage);
    give_turn();
    wait_products<0>();
    weigh(first_tile, place.stage);
    release(place.stage, 0);
    if constexpr (kInt8) wait(ring.full(place.stage, 1), place.turn);
    round(place.stage);
    step();
#pragma unroll 1
    for (int j = first_tile + 1; j < end_tile; ++j) {
      wait(ring.full(place.stage, 0), place.turn);
      take_turn();
      start_scores(place.stage);
      await_values(j - 1, old.stage, old.turn);
      start_sums(old.stage);
      give_turn();
      wait_products<1>();
      weigh(j, place.stage);
      release(place.stage, 0);
      wait_products<0>();
      settle(sums);
      release(old.stage, 1);
#pragma unroll
      for (int i = 0; i < kOwn / 2; ++i) sums[i] *= shrink[i / 2 % 2];
      if constexpr (kInt8) wait(ring.full(place.stage, 1), place.turn);
      round(place.stage);
      step();
    }
    await_values(end_tile - 1, old.stage, old.turn);
    start_sums(old.stage);
    wait_products<0>();
    settle(sums);
    release(old.stage, 1);
  }
  for (int j = end_tile; j < item.tiles; ++j) pass();
  if (!has_rows) return;

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 1);
    total[r] += __shfl_xor_sync(0xffffffffu, total[r], 2);
    const int head = item.first_head + ((first_row + 8 * r) & ((1 << a.head_shift) - 1));
    float factor = 1.0f;
    if (spec.sinks != nullptr) {
      const float sink = spec.sinks[head] * kLog2e, top = fmaxf(most[r], sink);
      factor = fast_exp2(most[r] - top);
      total[r] = total[r] * factor + fast_exp2(sink - top);
    }
    factor *= share_of(1.0f, total[r]);
    put_columns<kOwn>(a.y, a.operand, item.tile.x + token_of(r), head * kDims + dims_from, spec.heads * kDims,
                      token_of(r) < item.tile.y,
                      [&](int d, int i) { return sums[4 * d + 2 * r + i] * factor; });
  }
}

#endif

template <int kDims, int kKeys, bool kInt8, bool kCap>
__global__ __launch_bounds__(kPromptThreads, 1) void prompts_kernel(const __grid_constant__ Prompts a) {
#if defined(MLXS_HAS_WGMMA)
  using Ring = PromptRing<kDims, kKeys>;
  MLXS_DYNAMIC_SHARED(memory, 1024);
  __shared__ typename Ring::Small small;
  __shared__ __align__(16) float scales[kInt8 ? Ring::kStages * 2 * kKeys : 4];
  const Ring ring{memory, scales, small};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Ring::kStages; ++stage) {
      for (int which = 0; which < 2; ++which) {
        begin_barrier(ring.full(stage, which), kInt8 ? 128 : 1);
        begin_barrier(ring.empty(stage, which), kInt8 ? 256 : 8);  // threads or warps
      }
    }
    begin_barrier(small.queries[0], 1);
    begin_barrier(small.queries[1], 8);
    show_barriers();
  }
  __syncthreads();
  await();
  if (threadIdx.x < 128) {
    give_registers<kInt8 ? 104 : 24>();
    bring<kDims, kKeys, kInt8>(ring, a);
  } else {
    take_registers<kInt8 ? 200 : 240>();
    Place<Ring::kStages> place;
    Place<1> query_place;
    if (threadIdx.x >= 256) let_warpgroup(3);  // the first turn
    for (;;) {
      wait(small.queries[0], query_place.turn);
      const PromptItem& item = small.items[query_place.turn];  // until the next but one comes
      query_place.step();
      if (item.tiles < 0) break;
      attend_rows<kDims, kKeys, kInt8, kCap>(ring, a, item, static_cast<int>(threadIdx.x) / 128 - 1, place);
    }
  }
#endif
}

template <int kDims, int kKeys, bool kInt8, bool kCap>
void start_prompts(cudaStream_t stream, Prompts a, int multiprocessors) {
  a.items = a.step.num_tiles * a.spec.heads * (kTileRows / PromptRing<kDims, kKeys>::kRows);
  constexpr int kBytes = PromptRing<kDims, kKeys>::kBytes;
  constexpr auto kKernel = prompts_kernel<kDims, kKeys, kInt8, kCap>;
  allow_shared<kKernel>(kBytes);
  launch_early(kKernel, dim3(min(multiprocessors, a.items)), kPromptThreads, kBytes, stream, a);
}

template <int kDims, int kKeys>
void choose_prompts(cudaStream_t stream, const Prompts& a, int multiprocessors) {
  const bool cap = a.spec.soft_cap > 0.0f;
  if (a.kv.key_scales != nullptr)  // their opening needs registers, too
    return cap ? start_prompts<kDims, 64, true, true>(stream, a, multiprocessors)
               : start_prompts<kDims, 64, true, false>(stream, a, multiprocessors);
  cap ? start_prompts<kDims, kKeys, false, true>(stream, a, multiprocessors)
      : start_prompts<kDims, kKeys, false, false>(stream, a, multiprocessors);
}

void prompts_64(cudaStream_t stream, const Prompts& a, int multiprocessors);
void prompts_128(cudaStream_t stream, const Prompts& a, int multiprocessors);
void prompts_256(cudaStream_t stream, const Prompts& a, int multiprocessors);

}  // namespace mlxs::cuda
