// Attention of a few query rows at a time over a block of KV pages, for any vector width (decode on every
// path; prefill where there is no AMX). Flash-style: scores of a block, online softmax, then P·V, accumulated
// in f32. `V` is a vector type of one ISA file; a `Format` says how a 32-bit lane of K or V meets q or p.
// Included by ISA files only.
#pragma once

#include "backend/cpu/attention_heads.h"

namespace mlxs::cpu {
namespace {

// A 32-bit lane of K holds 2 bf16 dims, of V 2 tokens.
template <class V>
struct Bf16Format {
  static constexpr bool kScaled = false;
  static constexpr int kUnit = 2;  // dims of K, tokens of V in a lane
  using Cell = typename V::Pair;
  static Cell load(const std::byte* at) { return V::load_pair(at); }
  static typename V::F dot(typename V::F sum, Cell cell, const float* with) {
    return V::dot(sum, cell, with);
  }
};

// A lane holds 4 int8; scales of keys meet the scores, scales of values the probabilities.
template <class V>
struct Int8Format {
  static constexpr bool kScaled = true;
  static constexpr int kUnit = 4;
  using Cell = typename V::Quad;
  static Cell load(const std::byte* at) { return V::load_quad(at); }
  static typename V::F dot(typename V::F sum, Cell cell, const float* with) {
    return V::dot4(sum, cell, with);
  }
};

// One block of pages as a chunk of rows sees it.
struct PageBlock {
  const std::byte* blocks[kBlockPages];
  const std::byte* ahead[kBlockPages];  // what to prefetch meanwhile; null: nothing
  int pages;
};

inline void fetch(const std::byte* at) { __builtin_prefetch(at, 0, 2); }

// scores[r][16·page + t] = q[r] · k[page][t], for R rows and P pages at once.
template <class V, class Format, int R, int P>
inline void score_pages(const std::byte* const* blocks, const std::byte* const* ahead, const KvLayout& layout,
                        const float* query, float* scores) {
  const int key_lanes = layout.key_padded / Format::kUnit;
  if constexpr (Format::kScaled) {
    for (int p = 0; p < P; ++p) {
      if (ahead[p] == nullptr) continue;
      fetch(ahead[p] + layout.scale_offset);
      fetch(ahead[p] + layout.scale_offset + 64);
    }
  }
  constexpr int kVectors = kPageTokens / V::kLanes;
  typename V::F sums[P][kVectors][R];
  for (int p = 0; p < P; ++p) {
    for (int v = 0; v < kVectors; ++v) {
      for (int r = 0; r < R; ++r) sums[p][v][r] = V::zero();
    }
  }
  for (int lane = 0; lane < key_lanes; ++lane) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      if (ahead[p] != nullptr) fetch(ahead[p] + lane * 64);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        const typename Format::Cell cell = Format::load(blocks[p] + lane * 64 + v * V::kLanes * 4);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          sums[p][v][r] =
              Format::dot(sums[p][v][r], cell, query + r * key_lanes * Format::kUnit + lane * Format::kUnit);
        }
      }
    }
  }
  for (int p = 0; p < P; ++p) {
    for (int v = 0; v < kVectors; ++v) {
      for (int r = 0; r < R; ++r)
        V::store(scores + r * kBlockTokens + p * kPageTokens + v * V::kLanes, sums[p][v][r]);
    }
  }
}

// out[r][d0 …] = out · correction[r] + Σ p[r] · v, for R rows and D vectors of dims.
template <class V, class Format, int R, int D>
inline void add_values(const PageBlock& block, const KvLayout& layout, int dim, const float* probabilities,
                       const float* correction, float* out) {
  typename V::F sums[R][D];
  for (int r = 0; r < R; ++r) {
    for (int d = 0; d < D; ++d) {
      sums[r][d] =
          V::mul(V::load(out + r * layout.value_padded + dim + d * V::kLanes), V::set1(correction[r]));
    }
  }
  constexpr int kLanes = kPageTokens / Format::kUnit;
  for (int page = 0; page < block.pages; ++page) {
    const std::size_t offset = layout.value_offset + static_cast<std::size_t>(dim) * 4;
    const std::byte* values = block.blocks[page] + offset;
    const std::byte* ahead = block.ahead[page] != nullptr ? block.ahead[page] + offset : nullptr;
    for (int lane = 0; lane < kLanes; ++lane) {
#pragma GCC unroll 4
      for (int d = 0; d < D; ++d) {
        const int at = (lane * layout.value_padded + d * V::kLanes) * 4;
        if (ahead != nullptr && d * V::kLanes % 16 == 0) fetch(ahead + at);
        const typename Format::Cell cell = Format::load(values + at);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          sums[r][d] = Format::dot(sums[r][d], cell,
                                   probabilities + r * kBlockTokens + (page * kLanes + lane) * Format::kUnit);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int d = 0; d < D; ++d) V::store(out + r * layout.value_padded + dim + d * V::kLanes, sums[r][d]);
  }
}

// The same for one row over the tokens that it sees, [low, high) of the block, and no others: plain and slow,
// for blocks that hold infinities or NaN.
inline void add_seen_values(const PageBlock& block, const KvLayout& layout, int low, int high,
                            const float* probabilities, float correction, float* out) {
  for (int d = 0; d < layout.value_dim; ++d) {
    float sum = out[d] * correction;
    for (int t = low; t < high; ++t)
      sum += probabilities[t] * value_of(layout, block.blocks[t / kPageTokens], t % kPageTokens, d);
    out[d] = sum;
  }
}

// Turns one row's scores into probabilities relative to the new maximum; returns what older sums must be
// multiplied by.
template <class V, class Format>
inline float soften(const PageBlock& block, const KvLayout& layout, float tanh_factor, int low, int high,
                    float* scores, float* max, float* sum) {
  const int tokens = block.pages * kPageTokens;
  if constexpr (Format::kScaled) {
    for (int page = 0; page < block.pages; ++page) {
      const auto* scales = reinterpret_cast<const float*>(block.blocks[page] + layout.scale_offset);
      for (int t = 0; t < kPageTokens; t += V::kLanes) {
        float* at = scores + page * kPageTokens + t;
        V::store(at, V::mul(V::load(at), V::load(scales + t)));
      }
    }
  }
  if (tanh_factor > 0.0f) {
    for (int t = 0; t < tokens; t += V::kLanes) {
      V::store(scores + t, V::mul(V::tanh(V::load(scores + t)), V::set1(tanh_factor)));
    }
  }
  for (int t = 0; t < low; ++t) scores[t] = -__builtin_inff();
  for (int t = high; t < tokens; ++t) scores[t] = -__builtin_inff();

  typename V::F largest = V::set1(*max);
  for (int t = 0; t < tokens; t += V::kLanes)
    largest = V::max(V::load(scores + t), largest);  // NaN: keeps largest
  const float new_max = V::reduce_max(largest);
  const typename V::F shift = V::set1(new_max);
  typename V::F total = V::zero();
  for (int t = 0; t < tokens; t += V::kLanes) {
    const typename V::F p = V::exp2(V::sub(V::load(scores + t), shift));
    total = V::add(total, p);
    V::store(scores + t, p);
  }
  if constexpr (Format::kScaled) {
    for (int page = 0; page < block.pages; ++page) {
      const auto* scales =
          reinterpret_cast<const float*>(block.blocks[page] + layout.scale_offset) + kPageTokens;
      for (int t = 0; t < kPageTokens; t += V::kLanes) {
        float* at = scores + page * kPageTokens + t;
        V::store(at, V::mul(V::load(at), V::load(scales + t)));
      }
    }
  }
  const float correction = new_max == *max ? 1.0f : V::first(V::exp2(V::set1(*max - new_max)));
  *sum = *sum * correction + V::reduce_add(total);
  *max = new_max;
  return correction;
}

// R consecutive rows over one block whose page 0 starts at token `first`.
template <class V, class Format, int R>
void attend_chunk(const AttendArgs& args, const PageBlock& block, int first, int row, float* scores) {
  const KvLayout& layout = *args.kv.layout;
  const float* query = args.query + row * layout.key_padded;
  constexpr int kTogether = R <= V::kPagePairRows ? 2 : 1;
  int page = 0;
  for (; page + kTogether <= block.pages; page += kTogether) {
    score_pages<V, Format, R, kTogether>(block.blocks + page, block.ahead + page, layout, query,
                                         scores + page * kPageTokens);
  }
  if constexpr (kTogether == 2) {
    if (page < block.pages) {
      score_pages<V, Format, R, 1>(block.blocks + page, block.ahead + page, layout, query,
                                   scores + page * kPageTokens);
    }
  }
  float correction[R];
  int seen[R][2];
  const int tokens = block.pages * kPageTokens;
  const int there = args.end - first < tokens ? args.end - first : tokens;  // zeros follow
  int all_low = 0, all_high = there;                                        // what every row sees
  for (int r = 0; r < R; ++r) {
    const int token = args.first_token + (row + r) / args.group;
    const int end = args.causal && token + 1 < args.end ? token + 1 : args.end;
    int low = (args.window > 0 ? token + 1 - args.window : 0) - first;
    int high = end - first;
    low = low < 0 ? 0 : low > tokens ? tokens : low;
    high = high < low ? low : high > tokens ? tokens : high;
    seen[r][0] = low;
    seen[r][1] = high;
    all_low = all_low > low ? all_low : low;
    all_high = all_high < high ? all_high : high;
    correction[r] = soften<V, Format>(block, layout, args.tanh_factor, low, high, scores + r * kBlockTokens,
                                      args.max + row + r, args.sum + row + r);
  }
  float* out = args.out + row * layout.value_padded;
  if (all_low > 0 || all_high < there) {
    bool finite = true;
    for (int p = 0; p < block.pages; ++p) {
      const int last = (p + 1) * kPageTokens < there ? (p + 1) * kPageTokens : there;
      if (p * kPageTokens < all_low || last > all_high)
        finite = finite && finite_values(layout, block.blocks[p]);
    }
    if (!finite) {
      for (int r = 0; r < R; ++r) {
        add_seen_values(block, layout, seen[r][0], seen[r][1], scores + r * kBlockTokens, correction[r],
                        out + r * layout.value_padded);
      }
      return;
    }
  }
  constexpr int kMany = R <= 4 ? V::kValueVectors : V::kValueVectors / 2;
  constexpr int kFew = 16 / V::kLanes < kMany ? 16 / V::kLanes : kMany;
  int dim = 0;
  for (; dim + kMany * V::kLanes <= layout.value_padded; dim += kMany * V::kLanes) {
    add_values<V, Format, R, kMany>(block, layout, dim, scores, correction, out);
  }
  for (; dim < layout.value_padded; dim += kFew * V::kLanes) {
    add_values<V, Format, R, kFew>(block, layout, dim, scores, correction, out);
  }
}

template <class V, class Format, int R>
void attend_chunk_of(int rows, const AttendArgs& args, const PageBlock& block, int first, int row,
                     float* scores) {
  if (rows == R) {
    attend_chunk<V, Format, R>(args, block, first, row, scores);
  } else if constexpr (R > 1) {
    attend_chunk_of<V, Format, R - 1>(rows, args, block, first, row, scores);
  }
}

template <class V, class Format>
void attend_rows_as(const AttendArgs& args) {
  const KvLayout& layout = *args.kv.layout;
  for (int row = 0; row < args.rows; ++row) {
    args.max[row] = kNoScore;
    args.sum[row] = 0.0f;
  }
  __builtin_memset(args.out, 0, static_cast<std::size_t>(args.rows * layout.value_padded) * sizeof(float));

  auto* scores = reinterpret_cast<float*>(args.workspace);  // [V::kRows][kBlockTokens]
  for (int first = args.begin; first < args.end; first += kBlockTokens) {
    for (int row = 0; row < args.rows; row += V::kRows) {
      const int rows = args.rows - row < V::kRows ? args.rows - row : V::kRows;
      // Pages of the block that some row of the chunk sees.
      const int first_row_token = args.first_token + row / args.group;
      const int last_row_token = args.first_token + (row + rows - 1) / args.group;
      int low = args.window > 0 ? first_row_token + 1 - args.window : 0;
      int high = args.causal && last_row_token + 1 < args.end ? last_row_token + 1 : args.end;
      low = low > first ? low : first;
      high = high < first + kBlockTokens ? high : first + kBlockTokens;
      if (low >= high) continue;
      const int first_page = low / kPageTokens;
      PageBlock block;
      block.pages = (high + kPageTokens - 1) / kPageTokens - first_page;
      for (int page = 0; page < block.pages; ++page) {
        block.blocks[page] = kv_block(args.kv, first_page + page);
        block.ahead[page] = row == 0 && args.ahead != nullptr
                                ? args.ahead[first_page + page - args.begin / kPageTokens]
                                : nullptr;
      }
      attend_chunk_of<V, Format, V::kRows>(rows, args, block, first_page * kPageTokens, row, scores);
    }
  }
}

template <class V>
void attend_rows(const AttendArgs& args) {
  if (args.kv.layout->int8) {
    attend_rows_as<V, Int8Format<V>>(args);
  } else {
    attend_rows_as<V, Bf16Format<V>>(args);
  }
}

}  // namespace
}  // namespace mlxs::cpu
