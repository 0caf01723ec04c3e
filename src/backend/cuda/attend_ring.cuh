// Attention of prompts on Hopper: what a block works on, and where its queries, keys and values come from.
// Pages are brought tile by tile into a ring in shared memory: the copy engine brings those of bf16 in the
// order that the products want; codes of 8 bits are opened on their way.
#pragma once

#include "backend/cuda/attend.cuh"
#include "backend/cuda/bulk.cuh"
#include "backend/cuda/kv_codes.cuh"

namespace mlxs::cuda {

constexpr int kPromptThreads = 3 * 128;

struct Prompts {
  PageMap keys, values;  // not of codes of 8 bits
  const float* q;
  StepRows step;
  Attention spec;
  KvLayer kv;
  int head_shift;  // log2 of the heads of an item
  int items;       // [tiles][parts of their tokens, the last first][heads together]
  float* y;
  Operand operand;
};

// Rows that share what they see: 128 of tokens times heads, or 64 of large heads.
struct PromptItem {
  int2 tile;  // of the step: first row, rows
  int from;   // the first token, in the tile
  int first_head, kv_head, first_position;
  int begin, end, tiles;  // tokens that it sees, from the start of a page on; in how many tiles; -1: no more
  const int* pages;
};

// The ring has keys and values in stages of their own; queries come as they are, rows a little apart so that
// the products' threads read different banks.
template <int kDims, int kKeys>
struct PromptRing {
  static constexpr int kRows = kDims > 128 ? 64 : 128;  // of an item
  static constexpr int kTileBytes = kKeys * kDims * 2, kQueryRow = kDims * 4 + 32;
  static constexpr int kStages = 128 * 1024 / (2 * kTileBytes) < 4 ? 128 * 1024 / (2 * kTileBytes) : 4;
  static constexpr int kRingBytes = kStages * 2 * kTileBytes, kBytes = kRingBytes + kRows * kQueryRow;
  struct Small {
    Barrier barriers[kStages][2][2];  // keys, values; full, empty
    Barrier queries[2];               // full, empty
    PromptItem items[2];              // whose queries they are, and the one before
  };
  char* memory;   // [stages][keys, values], queries
  float* scales;  // [stages][keys, values][kKeys], of codes of 8 bits
  Small& small;
  __device__ char* tile(int stage, int which) const { return memory + (stage * 2 + which) * kTileBytes; }
  __device__ char* query(int row) const { return memory + kRingBytes + row * kQueryRow; }
  __device__ float* scale(int stage, int which) const { return scales + (stage * 2 + which) * kKeys; }
  __device__ Barrier& full(int stage, int which) const { return small.barriers[stage][which][0]; }
  __device__ Barrier& empty(int stage, int which) const { return small.barriers[stage][which][1]; }
};

// Where one is in a ring: the phases of its barriers.
template <int kStages>
struct Place {
  int stage = 0, turn = 0;
  __device__ void step() {
    if (++stage == kStages) {
      stage = 0;
      turn ^= 1;
    }
  }
};

#if defined(MLXS_HAS_WGMMA)

template <int kKeys, int kRows>
__device__ bool find_item(const Prompts& a, int index, PromptItem& item) {
  const Attention& spec = a.spec;
  const int across = spec.heads >> a.head_shift, parts = kTileRows / kRows << a.head_shift,
            tokens = kRows >> a.head_shift;
  const int part = index / across % parts;
  item.tile = reinterpret_cast<const int2*>(a.step.tiles)[index / across / parts];
  item.from = (parts - 1 - part) * tokens;
  if (item.from >= item.tile.y) return false;
  item.first_head = index % across << a.head_shift;
  item.kv_head = item.first_head / (spec.heads / a.kv.kv_heads);
  item.first_position = a.step.positions[item.tile.x];
  item.begin =
      spec.window > 0 ? max(0, item.first_position + item.from - spec.window + 1) / kPage * kPage : 0;
  item.end =
      spec.causal ? item.first_position + min(item.from + tokens, item.tile.y) : a.step.lengths[item.tile.x];
  item.tiles = (item.end - item.begin + kKeys - 1) / kKeys;
  item.pages = a.step.pages + a.step.first_page[item.tile.x];
  return true;
}

// The block's own: those that see most come first, and every second round goes backwards, for equal shares.
template <int kKeys, int kRows, class Work>
__device__ void each_item(const Prompts& a, const Work& work) {
  const int blocks = static_cast<int>(gridDim.x), own = static_cast<int>(blockIdx.x);
  for (int round = 0; round * blocks < a.items; ++round) {
    const int index = round * blocks + (round % 2 == 0 ? own : blocks - 1 - own);
    PromptItem item;
    if (index < a.items && find_item<kKeys, kRows>(a, index, item)) work(item);
  }
}

// One warp: an item's queries, the item itself beside them.
template <int kDims, int kKeys>
__device__ void bring_queries(const PromptRing<kDims, kKeys>& ring, const Prompts& a, const PromptItem& item,
                              Place<1>& place) {
  const int lane = threadIdx.x % 32, tokens = ring.kRows >> a.head_shift;
  const int rows = item.tiles < 0 ? 0 : min(tokens, item.tile.y - item.from) << a.head_shift;
  wait(ring.small.queries[1], place.turn ^ 1);
  if (lane == 0) {
    ring.small.items[place.turn] = item;
    arrive_expecting(ring.small.queries[0], rows * kDims * 4);
  }
  place.step();
  __syncwarp();
  for (int row = lane; row < rows; row += 32) {
    const int token = item.tile.x + item.from + (row >> a.head_shift),
              head = item.first_head + (row & ((1 << a.head_shift) - 1));
    copy_bytes(ring.query(row), a.q + (static_cast<size_t>(token) * a.spec.heads + head) * kDims, kDims * 4,
               ring.small.queries[0]);
  }
}

// One warp: an item's pages of bf16.
template <int kDims, int kKeys, class RingPlace>
__device__ void bring_pages(const PromptRing<kDims, kKeys>& ring, const Prompts& a, const PromptItem& item,
                            RingPlace& place) {
  constexpr int kPages = kKeys / kPage, kPageBytes = kPage * kDims * 2;
  const int lane = threadIdx.x % 32;
  for (int j = 0; j < item.tiles; ++j) {
    const int first = item.begin + j * kKeys, count = min(kPages, (item.end - first + kPage - 1) / kPage);
    const int page = lane < count ? item.pages[first / kPage + lane] * a.kv.kv_heads + item.kv_head : 0;
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      wait(ring.empty(place.stage, which), place.turn ^ 1);
      if (lane == 0) arrive_expecting(ring.full(place.stage, which), count * kPageBytes);
      __syncwarp();
      if (lane < count)
        copy_page(ring.tile(place.stage, which) + lane * kPageBytes, which == 0 ? a.keys : a.values, page,
                  ring.full(place.stage, which));
    }
    place.step();
  }
}

// Four warps: an item's codes of 8 bits, which they open. What is behind the last token becomes zeros.
template <int kDims, int kKeys, class RingPlace>
__device__ void open_pages(const PromptRing<kDims, kKeys>& ring, const Prompts& a, const PromptItem& item,
                           RingPlace& place) {
  constexpr int kEach = kKeys * kDims / 16 / 128;  // sixteen codes a turn
  const int thread = threadIdx.x % 128;
  uint4 codes[kEach];
  float scale = 0.0f;
  const auto head_of = [&](int token) {
    return static_cast<size_t>(item.pages[token / kPage]) * a.kv.kv_heads + item.kv_head;
  };
  const auto read = [&](int j, int which) {
    const auto* from = static_cast<const char*>(which == 0 ? a.kv.keys : a.kv.values);
    const int first = item.begin + j * kKeys;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int piece = thread + i * 128, token = first + piece / (kDims / 16);
      codes[i] = {};
      if (token < item.end)
        codes[i] =
            *reinterpret_cast<const uint4*>(from + head_of(token) * kPage * kDims + piece % kDims * 16);
    }
    if (thread < kKeys) {
      const int token = first + thread;
      const float* scales = which == 0 ? a.kv.key_scales : a.kv.value_scales;
      scale = token < item.end ? scales[head_of(token) * kPage + token % kPage] : 0.0f;
    }
  };
  if (item.tiles > 0) read(0, 0);
  for (int j = 0; j < item.tiles; ++j) {
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      wait(ring.empty(place.stage, which), place.turn ^ 1);
      char* const tile = ring.tile(place.stage, which);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const int piece = thread + i * 128, token = piece / (kDims / 16), chunk = piece % (kDims / 16) * 2;
        char* const row = tile + token / 8 * (kDims / 64 * 1024) + chunk / 8 * 1024 + token % 8 * 128;
        *reinterpret_cast<uint4*>(row + (chunk % 8 ^ token % 8) * 16) =
            open_codes(uint2{codes[i].x, codes[i].y});
        *reinterpret_cast<uint4*>(row + ((chunk % 8 + 1) ^ token % 8) * 16) =
            open_codes(uint2{codes[i].z, codes[i].w});
      }
      if (thread < kKeys) ring.scale(place.stage, which)[thread] = scale;
      show_copies_to_products();
      arrive(ring.full(place.stage, which));
      if (which == 0) read(j, 1);
      if (which == 1 && j + 1 < item.tiles) read(j + 1, 0);
    }
    place.step();
  }
}

// The first four warps of a block.
template <int kDims, int kKeys, bool kInt8>
__device__ void bring(const PromptRing<kDims, kKeys>& ring, const Prompts& a) {
  const int warp = threadIdx.x / 32;
  constexpr int kLoader = kInt8 ? 0 : 1;  // of queries
  Place<PromptRing<kDims, kKeys>::kStages> place;
  Place<1> query_place;
  each_item<kKeys, PromptRing<kDims, kKeys>::kRows>(a, [&](const PromptItem& item) {
    if (warp == kLoader) bring_queries(ring, a, item, query_place);
    if constexpr (kInt8) {
      open_pages(ring, a, item, place);
    } else {
      if (warp == 0) bring_pages(ring, a, item, place);
    }
  });
  if (warp != kLoader) return;
  PromptItem end{};
  end.tiles = -1;
  bring_queries(ring, a, end, query_place);
}

#endif

}  // namespace mlxs::cuda
