// The two products of attention on AMX tiles, bf16 in and f32 out: scores of query rows against keys, and
// probabilities against values. For the AMX files; a thread holds a TileScope while it calls them.
#pragma once

#include "backend/cpu/attention_rows.h"

namespace mlxs::cpu {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 1024;
constexpr int kRowsTogether = 32;  // two tiles of rows share each tile of K or V
static_assert(kRowsTogether == kRowPad);

// All eight tiles are 16 rows × 64 bytes. Restores what the thread had, so that callers may keep their own
// configuration.
class TileScope {
 public:
  TileScope() {
    _tile_storeconfig(before_);
    same_ = __builtin_memcmp(before_, kConfig, 64) == 0;
    if (!same_) _tile_loadconfig(kConfig);
  }
  ~TileScope() {
    if (!same_) _tile_loadconfig(before_);
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  alignas(64) static constexpr std::uint8_t kConfig[64] = {
      1,  0, 0,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 64, 0, 64, 0,  64, 0,  64, 0,  64, 0,
      64, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0, 0,  0, 16, 16, 16, 16, 16, 16, 16, 16};
  alignas(64) std::uint8_t before_[64];
  bool same_;
};

// GCC's tile intrinsics do not tell the compiler that they read memory.
inline void settle_stores() { __asm__ volatile("" ::: "memory"); }

// Scores of 16 or 32 rows against one pair of pages: S[row][32 tokens].
template <bool kTwo>
inline void score_tiles(const std::byte* query, int query_stride, const std::byte* key0,
                        const std::byte* key1, int steps, float* scores) {
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kTwo) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int step = 0; step < steps; ++step) {
    _tile_loadd(6, key0 + step * kTileBytes, 64);
    _tile_loadd(4, query + step * 64, query_stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, key1 + step * kTileBytes, 64);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kTwo) {
      _tile_loadd(5, query + step * 64 + kTileRows * query_stride, query_stride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  constexpr int kStride = kBlockTokens * 4;
  _tile_stored(0, scores, kStride);
  _tile_stored(1, scores + 16, kStride);
  if constexpr (kTwo) {
    _tile_stored(2, scores + kTileRows * kBlockTokens, kStride);
    _tile_stored(3, scores + kTileRows * kBlockTokens + 16, kStride);
  }
}

// out[row][32 dims] += P · V over `groups` pairs of pages, for 16 or 32 rows. values: the tile of (group 0,
// these dims).
template <bool kTwo, bool kTwoDims>
inline void value_tiles(const std::byte* probabilities, const std::byte* values, int group_bytes, int groups,
                        float* out, int out_stride) {
  float* below = out + kTileRows * out_stride / 4;
  _tile_loadd(0, out, out_stride);
  if constexpr (kTwoDims) _tile_loadd(1, out + 16, out_stride);
  if constexpr (kTwo) _tile_loadd(2, below, out_stride);
  if constexpr (kTwo && kTwoDims) _tile_loadd(3, below + 16, out_stride);
  constexpr int kStride = kBlockTokens * 4;  // P lies where the scores were
  for (int group = 0; group < groups; ++group) {
    _tile_loadd(6, values + group * group_bytes, 64);
    _tile_loadd(4, probabilities + group * 64, kStride);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kTwoDims) {
      _tile_loadd(7, values + group * group_bytes + kTileBytes, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kTwo) {
      _tile_loadd(5, probabilities + group * 64 + kTileRows * kStride, kStride);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kTwoDims) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, out, out_stride);
  if constexpr (kTwoDims) _tile_stored(1, out + 16, out_stride);
  if constexpr (kTwo) _tile_stored(2, below, out_stride);
  if constexpr (kTwo && kTwoDims) _tile_stored(3, below + 16, out_stride);
}

}  // namespace
}  // namespace mlxs::cpu
