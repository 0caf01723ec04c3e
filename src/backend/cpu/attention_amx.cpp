// bf16 instructions: vdpbf16ps for a few rows, AMX tiles for many. The first needs no AMX, though it is
// compiled beside it.
#include "backend/cpu/attention_float16.h"
#include "backend/cpu/attention_rows.h"
#include "backend/cpu/attention_tiles_amx.h"

namespace mlxs::cpu {
namespace {

// f32 → bf16, nearest even; count: a multiple of 16.
void narrow(const float* in, std::byte* out, int count) {
  for (int i = 0; i < count; i += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * 2),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(in + i))));
  }
}

// As exp2, but to 9e-5: the result is rounded to bf16 (4e-3) anyway, and this is where prefill spends its
// time.
inline __m512 exp2_coarse(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 p = _mm512_set1_ps(0.07706703990697861f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.22764499485492706f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.6951167583465576f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);
}

// A row's maximum moves only if a score exceeds it by more than this (as a power of two): P stays below 2^8,
// which costs no precision in floating point, and almost no block behind the first has to rescale what was
// summed before.
constexpr float kMaxSlack = 8.0f;

// Soft cap and mask of one row's scores, in place; needed at the edges of what a row sees only.
template <int kVectors>
void adjust_row(float* scores, int low, int high, float tanh_factor) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int v = 0; v < kVectors; ++v) {
    __m512 s = _mm512_load_ps(scores + 16 * v);
    if (tanh_factor > 0.0f) s = Float16::mul(Float16::tanh(s), Float16::set1(tanh_factor));
    const __m512i token = _mm512_add_epi32(lane, _mm512_set1_epi32(16 * v));
    const __mmask16 seen = _mm512_mask_cmplt_epi32_mask(
        _mm512_cmpge_epi32_mask(token, _mm512_set1_epi32(low)), token, _mm512_set1_epi32(high));
    _mm512_store_ps(scores + 16 * v, _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), seen, s));
  }
}

// Raises *max if a score exceeds it by more than the slack; returns what older sums must be multiplied by.
template <int kVectors>
inline float raise_max(const float* scores, float* max) {
  const __m512 limit = _mm512_set1_ps(*max + kMaxSlack);
  __m512 largest[2] = {limit, limit};
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v)
    largest[v % 2] = _mm512_max_ps(_mm512_load_ps(scores + 16 * v), largest[v % 2]);
  const __m512 both = _mm512_max_ps(largest[0], largest[1]);  // NaN scores never get here
  if (_mm512_cmp_ps_mask(both, limit, _CMP_GT_OQ) == 0) return 1.0f;
  const float new_max = _mm512_reduce_max_ps(both);
  const float correction = Float16::first(Float16::exp2(_mm512_set1_ps(*max - new_max)));
  *max = new_max;
  return correction;
}

// Scores become P in bf16, in place; `sum` has 16 lanes.
template <int kVectors>
inline void exponentiate(float* scores, float max, float* sum) {
  const __m512 shift = _mm512_set1_ps(max);
  __m512 totals[2] = {_mm512_load_ps(sum), _mm512_setzero_ps()};
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; v += 2) {
    const __m512 low = exp2_coarse(_mm512_sub_ps(_mm512_load_ps(scores + 16 * v), shift));
    const __m512 high = exp2_coarse(_mm512_sub_ps(_mm512_load_ps(scores + 16 * v + 16), shift));
    totals[0] = _mm512_add_ps(totals[0], low);
    totals[1] = _mm512_add_ps(totals[1], high);
    _mm512_store_si512(scores + 8 * v, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
  }
  _mm512_store_ps(sum, _mm512_add_ps(totals[0], totals[1]));
}

// The bf16 pairs of four scaled int8 vectors: lanes (0, 1) and (2, 3).
inline void widen_quads(const std::byte* quads, const __m512* scales, std::byte* first, std::byte* second) {
  const Float16::Quad q = Float16::load_quad(quads);
  const __m512i half = _mm512_set1_epi32(0x8000);
  __m512i bits[4];
  for (int i = 0; i < 4; ++i) {
    bits[i] = _mm512_add_epi32(_mm512_castps_si512(_mm512_mul_ps(q.part[i], scales[i])), half);
  }
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  _mm512_store_si512(first, _mm512_or_si512(_mm512_srli_epi32(bits[0], 16), _mm512_and_si512(bits[1], high)));
  _mm512_store_si512(second,
                     _mm512_or_si512(_mm512_srli_epi32(bits[2], 16), _mm512_and_si512(bits[3], high)));
}

// K and V of one block of pages as tiles. bf16 K is used where it lies; V's pages are paired, int8 is
// widened.
struct TileBlock {
  const std::byte* keys[kBlockPages] = {};
  std::byte* key_buffer;    // [page][key_padded / 32] tiles, int8 only
  std::byte* value_buffer;  // [page pair][value_padded / 16] tiles of 32 tokens
};

void stage_block(const AttendArgs& args, int first_page, int pages, TileBlock& block) {
  const KvLayout& layout = *args.kv.layout;
  const int value_tiles_wide = layout.value_padded / 16;
  for (int page = 0; page < pages; ++page) {
    const std::byte* source = kv_block(args.kv, first_page + page);
    const std::byte* values = source + layout.value_offset;
    std::byte* target =
        block.value_buffer + page / 2 * value_tiles_wide * kTileBytes + page % 2 * (kTileBytes / 2);
    if (!layout.int8) {
      block.keys[page] = source;
      for (int pair = 0; pair < kPageTokens / 2; ++pair) {
        for (int tile = 0; tile < value_tiles_wide; ++tile) {
          _mm512_store_si512(target + tile * kTileBytes + pair * 64,
                             _mm512_load_si512(values + (pair * value_tiles_wide + tile) * 64));
        }
      }
      continue;
    }
    const auto* scales = reinterpret_cast<const float*>(source + layout.scale_offset);
    const __m512 key_scale = _mm512_load_ps(scales);
    const __m512 key_scales[4] = {key_scale, key_scale, key_scale, key_scale};
    std::byte* keys = block.key_buffer + page * layout.key_padded * 32;
    block.keys[page] = keys;
    for (int quad = 0; quad < layout.key_padded / 4; ++quad) {
      widen_quads(source + quad * 64, key_scales, keys + quad * 128, keys + quad * 128 + 64);
    }
    for (int quad = 0; quad < kPageTokens / 4; ++quad) {
      __m512 value_scales[4];
      for (int i = 0; i < 4; ++i) value_scales[i] = _mm512_set1_ps(scales[kPageTokens + 4 * quad + i]);
      for (int tile = 0; tile < value_tiles_wide; ++tile) {
        std::byte* row = target + tile * kTileBytes + quad * 128;
        widen_quads(values + (quad * value_tiles_wide + tile) * 64, value_scales, row, row + 64);
      }
    }
  }
  if (pages % 2 != 0) {  // the last pair's missing page: K again (masked), V zero
    block.keys[pages] = block.keys[pages - 1];
    std::byte* target = block.value_buffer + pages / 2 * value_tiles_wide * kTileBytes + kTileBytes / 2;
    for (int tile = 0; tile < value_tiles_wide; ++tile)
      __builtin_memset(target + tile * kTileBytes, 0, kTileBytes / 2);
  }
}

// What one call of attend_amx works on: up to 32 query rows over the page pairs of a block that they see.
struct RowTile {
  int row = 0, rows = 0;
  int first_group = 0, groups = 0;  // page pairs of the block
};

class TileRun {
 public:
  explicit TileRun(const AttendArgs& args) : args_(args), layout_(*args.kv.layout) {
    padded_ = (args.rows + kRowPad - 1) / kRowPad * kRowPad;
    std::byte* at = args.workspace;
    const auto take = [&](int bytes) {
      std::byte* part = at;
      at += bytes;
      return part;
    };
    for (float*& scores : scores_) scores = reinterpret_cast<float*>(take(kRowsTogether * kBlockTokens * 4));
    block_.value_buffer = take(kBlockTokens * layout_.value_padded * 2);
    block_.key_buffer = take(kBlockTokens * layout_.key_padded * 2);
    sums_ = reinterpret_cast<float*>(take(padded_ * 64));
    query_ = take(padded_ * layout_.key_padded * 2);
  }

  void run() {
    start();
    for (int first = args_.begin; first < args_.end; first += kBlockTokens) {
      const int last = first + kBlockTokens < args_.end ? first + kBlockTokens : args_.end;
      RowTile tile = next(0, first, last);
      if (tile.rows == 0) continue;
      stage_block(args_, first / kPageTokens, (last - first + kPageTokens - 1) / kPageTokens, block_);
      const bool clean = all_see(first, last) || finite(first, last);
      settle_stores();
      // The next rows' scores are computed before these rows' P·V: AMX works while P drains to the cache.
      score(tile, scores_[0]);
      for (int turn = 0; tile.rows > 0; turn ^= 1) {
        soften(tile, first, scores_[turn]);
        const RowTile following = next(tile.row + kRowsTogether, first, last);
        if (following.rows > 0) score(following, scores_[turn ^ 1]);
        settle_stores();
        if (clean) {
          add_values(tile, scores_[turn]);
        } else {
          add_seen_values(tile, first + tile.first_group * 32, scores_[turn]);
        }
        tile = following;
      }
    }
    for (int row = 0; row < args_.rows; ++row) {
      args_.sum[row] = _mm512_reduce_add_ps(_mm512_load_ps(sums_ + row * 16));
    }
  }

 private:
  void start() {
    for (int row = 0; row < padded_; ++row) args_.max[row] = kNoScore;
    __builtin_memset(sums_, 0, static_cast<std::size_t>(padded_) * 64);
    __builtin_memset(args_.out, 0, static_cast<std::size_t>(padded_ * layout_.value_padded) * sizeof(float));
    narrow(args_.query, query_, args_.rows * layout_.key_padded);
    __builtin_memset(query_ + args_.rows * layout_.key_padded * 2, 0,
                     static_cast<std::size_t>((padded_ - args_.rows) * layout_.key_padded * 2));
  }

  // The first tile of rows at or behind `row` that sees something of the block of tokens [first, last).
  RowTile next(int row, int first, int last) const {
    for (; row < args_.rows; row += kRowsTogether) {
      const int rows = args_.rows - row < kRowsTogether ? args_.rows - row : kRowsTogether;
      const int first_row_token = args_.first_token + row / args_.group;
      const int last_row_token = args_.first_token + (row + rows - 1) / args_.group;
      int low = args_.window > 0 ? first_row_token + 1 - args_.window : 0;
      const int high = args_.causal && last_row_token + 1 < last ? last_row_token + 1 : last;
      low = low > first ? low : first;
      if (low >= high) continue;
      const int first_group = (low - first) / 32;
      return {row, rows, first_group, (high - first + 31) / 32 - first_group};
    }
    return {};
  }

  void score(const RowTile& tile, float* scores) const {
    const int stride = layout_.key_padded * 2;
    const std::byte* query = query_ + tile.row * stride;
    for (int group = 0; group < tile.groups; ++group) {
      const std::byte* const* keys = block_.keys + 2 * (tile.first_group + group);
      if (tile.rows > kTileRows) {
        score_tiles<true>(query, stride, keys[0], keys[1], layout_.key_padded / 32, scores + group * 32);
      } else {
        score_tiles<false>(query, stride, keys[0], keys[1], layout_.key_padded / 32, scores + group * 32);
      }
    }
  }

  void soften(const RowTile& tile, int first, float* scores) const {
    switch (tile.groups) {
      case 1:
        soften_rows<2>(tile, first, scores);
        break;
      case 2:
        soften_rows<4>(tile, first, scores);
        break;
      case 3:
        soften_rows<6>(tile, first, scores);
        break;
      default:
        soften_rows<8>(tile, first, scores);
        break;
    }
  }

  // Passes over all rows, each of independent rows: one row's chain of max, exp2 and sum is long and would
  // stall.
  template <int kVectors>
  void soften_rows(const RowTile& tile, int first, float* scores) const {
    constexpr int kTokens = kVectors * 16;
    first += tile.first_group * 32;
    int token = args_.first_token + tile.row / args_.group;
    int head = tile.row % args_.group;
    for (int r = 0; r < tile.rows; ++r) {
      int low = (args_.window > 0 ? token + 1 - args_.window : 0) - first;
      int high = (args_.causal && token + 1 < args_.end ? token + 1 : args_.end) - first;
      low = low < 0 ? 0 : low > kTokens ? kTokens : low;
      high = high < low ? low : high > kTokens ? kTokens : high;
      if (low > 0 || high < kTokens || args_.tanh_factor > 0.0f) {
        adjust_row<kVectors>(scores + r * kBlockTokens, low, high, args_.tanh_factor);
      }
      if (++head == args_.group) {
        head = 0;
        ++token;
      }
    }
    float* max = args_.max + tile.row;
    float* sums = sums_ + tile.row * 16;
    for (int r = 0; r < tile.rows; ++r) {
      const float correction = raise_max<kVectors>(scores + r * kBlockTokens, max + r);
      if (correction == 1.0f) continue;
      const __m512 factor = _mm512_set1_ps(correction);
      _mm512_store_ps(sums + r * 16, _mm512_mul_ps(_mm512_load_ps(sums + r * 16), factor));
      float* out = args_.out + (tile.row + r) * layout_.value_padded;
      for (int d = 0; d < layout_.value_padded; d += 16) {
        _mm512_storeu_ps(out + d, _mm512_mul_ps(_mm512_loadu_ps(out + d), factor));
      }
    }
    for (int r = 0; r < tile.rows; ++r)
      exponentiate<kVectors>(scores + r * kBlockTokens, max[r], sums + r * 16);
  }

  // Every row sees every token of the block [first, last).
  bool all_see(int first, int last) const {
    const int last_row_token = args_.first_token + (args_.rows - 1) / args_.group;
    return (!args_.causal || last <= args_.first_token + 1) &&
           (args_.window == 0 || first > last_row_token - args_.window);
  }
  bool finite(int first, int last) const {
    for (int page = first / kPageTokens; page * kPageTokens < last; ++page) {
      if (!finite_values(layout_, kv_block(args_.kv, page))) return false;
    }
    return true;
  }
  // Of blocks with infinities or NaN: each row meets the tokens that it sees only. first: where P begins.
  void add_seen_values(const RowTile& tile, int first, const float* scores) const {
    for (int r = 0; r < tile.rows; ++r) {
      const int token = args_.first_token + (tile.row + r) / args_.group;
      int low = args_.window > 0 ? token + 1 - args_.window : 0;
      int high = args_.causal && token + 1 < args_.end ? token + 1 : args_.end;
      low = low < first ? first : low;
      high = high < first + tile.groups * 32 ? high : first + tile.groups * 32;
      const auto* probabilities = reinterpret_cast<const std::uint16_t*>(scores + r * kBlockTokens);
      float* out = args_.out + (tile.row + r) * layout_.value_padded;
      for (int t = low; t < high; ++t) {
        const std::byte* block = kv_block(args_.kv, t / kPageTokens);
        const int slot = t % kPageTokens;
        float p = __builtin_bit_cast(float, static_cast<std::uint32_t>(probabilities[t - first]) << 16);
        if (layout_.int8)
          p *= reinterpret_cast<const float*>(block + layout_.scale_offset)[kPageTokens + slot];
        for (int d = 0; d < layout_.value_dim; ++d) out[d] += p * value_of(layout_, block, slot, d);
      }
    }
  }

  void add_values(const RowTile& tile, const float* scores) const {
    if (tile.rows > kTileRows) {
      add_values_of<true>(tile, reinterpret_cast<const std::byte*>(scores));
    } else {
      add_values_of<false>(tile, reinterpret_cast<const std::byte*>(scores));
    }
  }
  template <bool kTwo>
  void add_values_of(const RowTile& tile, const std::byte* probabilities) const {
    const int wide = layout_.value_padded / 16;
    const std::byte* values = block_.value_buffer + tile.first_group * wide * kTileBytes;
    float* out = args_.out + tile.row * layout_.value_padded;
    const int stride = layout_.value_padded * 4;
    int dims = 0;
    for (; dims + 2 <= wide; dims += 2) {
      value_tiles<kTwo, true>(probabilities, values + dims * kTileBytes, wide * kTileBytes, tile.groups,
                              out + dims * 16, stride);
    }
    if (dims < wide) {
      value_tiles<kTwo, false>(probabilities, values + dims * kTileBytes, wide * kTileBytes, tile.groups,
                               out + dims * 16, stride);
    }
  }

  const AttendArgs& args_;
  const KvLayout& layout_;
  int padded_;
  float* scores_[2];  // [32][kBlockTokens], then P in bf16 at the same row starts
  TileBlock block_;
  float* sums_;       // [padded rows][16 lanes]
  std::byte* query_;  // bf16 [padded rows][key_padded]
};

// Below this many rows the vector path keeps up with memory, and its q and p are exact. (vdpbf16ps would not
// help it: at half an instruction a cycle it multiplies half as fast as f32 FMA.)
constexpr int kFewestTileRows = 9;

void attend_amx(const AttendArgs& args) {
  if (args.rows < kFewestTileRows) {
    attend_rows<Float16>(args);
    return;
  }
  const TileScope tiles;
  TileRun(args).run();
}

}  // namespace

const AttentionKernels& attention_amx() {
  static constexpr AttentionKernels kKernels{"amx", transform_head<Float16>, append_rows<Float16>, attend_amx,
                                             scale_row};
  return kKernels;
}

}  // namespace mlxs::cpu
