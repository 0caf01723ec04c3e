// bf16 instructions: vdpbf16ps for a few rows, AMX tiles for many. The first needs no AMX, though it is
// compiled beside it.
#include "backend/cpu/attention_float16.h"
#include "backend/cpu/attention_rows.h"

namespace mlxs::cpu {
namespace {

struct Dot16 : Float16 {
  using Pair = __m512i;
  using Element = std::uint32_t;  // two bf16
  static constexpr bool kDot = true;

  static Pair load_pair(const std::byte* at) { return _mm512_loadu_si512(at); }
  static F dot(F sum, Pair cell, const std::uint32_t* with) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(cell),
                            reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(*with))));
  }
  static void pack(const float* in, std::uint32_t* out, int count) {  // count: a multiple of 16
    for (int i = 0; i < count; i += 16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i / 2),
                          reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(in + i))));
    }
  }
};

// ---------------------------------------------------------------- tiles

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
  constexpr int kStride = kBlockTokens * 2;
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

// One row's softmax over kVectors · 16 tokens, all in registers: scores → P in bf16. Returns the older sums'
// correction.
template <int kVectors>
inline float soften_row(const float* scores, int low, int high, float tanh_factor, std::byte* probabilities,
                        float* max, float* sum) {
  __m512 s[kVectors];
  for (int v = 0; v < kVectors; ++v) s[v] = _mm512_load_ps(scores + 16 * v);
  if (tanh_factor > 0.0f) {
    for (int v = 0; v < kVectors; ++v) s[v] = Float16::mul(Float16::tanh(s[v]), Float16::set1(tanh_factor));
  }
  if (low > 0 || high < kVectors * 16) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int v = 0; v < kVectors; ++v) {
      const __m512i token = _mm512_add_epi32(lane, _mm512_set1_epi32(16 * v));
      const __mmask16 seen = _mm512_mask_cmplt_epi32_mask(
          _mm512_cmpge_epi32_mask(token, _mm512_set1_epi32(low)), token, _mm512_set1_epi32(high));
      s[v] = _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), seen, s[v]);
    }
  }
  __m512 largest = _mm512_set1_ps(*max);
  for (int v = 0; v < kVectors; ++v) largest = _mm512_max_ps(s[v], largest);  // NaN: keeps largest
  const float new_max = _mm512_reduce_max_ps(largest);
  const __m512 shift = _mm512_set1_ps(new_max);
  __m512 total = _mm512_setzero_ps();
  for (int v = 0; v < kVectors; ++v) {
    s[v] = exp2_coarse(_mm512_sub_ps(s[v], shift));
    total = _mm512_add_ps(total, s[v]);
  }
  for (int v = 0; v < kVectors; v += 2) {
    _mm512_store_si512(probabilities + v * 32,
                       reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(s[v + 1], s[v])));
  }
  const float correction =
      new_max == *max ? 1.0f : _mm512_cvtss_f32(Float16::exp2(_mm512_set1_ps(*max - new_max)));
  *sum = *sum * correction + _mm512_reduce_add_ps(total);
  *max = new_max;
  return correction;
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
  const std::byte* keys[kBlockPages];
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

// Rows [row, row + rows) over `groups` page pairs of a staged block, whose pair 0 starts at token `first`.
template <bool kTwo>
void attend_tiles(const AttendArgs& args, const TileBlock& block, int first_group, int groups, int first,
                  int row, int rows, const std::byte* query, float* scores, std::byte* probabilities) {
  const KvLayout& layout = *args.kv.layout;
  const int query_stride = layout.key_padded * 2;
  for (int group = 0; group < groups; ++group) {
    const int page = 2 * (first_group + group);
    score_tiles<kTwo>(query + row * query_stride, query_stride, block.keys[page], block.keys[page + 1],
                      layout.key_padded / 32, scores + group * 32);
  }
  const int tokens = groups * 32;
  for (int r = 0; r < rows; ++r) {
    const int token = args.first_token + (row + r) / args.group;
    const int end = args.causal && token + 1 < args.end ? token + 1 : args.end;
    int low = (args.window > 0 ? token + 1 - args.window : 0) - first;
    int high = end - first;
    low = low < 0 ? 0 : low > tokens ? tokens : low;
    high = high < low ? low : high > tokens ? tokens : high;
    const float* s = scores + r * kBlockTokens;
    std::byte* p = probabilities + r * kBlockTokens * 2;
    float* max = args.max + row + r;
    float* sum = args.sum + row + r;
    float correction;
    switch (groups) {
      case 1:
        correction = soften_row<2>(s, low, high, args.tanh_factor, p, max, sum);
        break;
      case 2:
        correction = soften_row<4>(s, low, high, args.tanh_factor, p, max, sum);
        break;
      case 3:
        correction = soften_row<6>(s, low, high, args.tanh_factor, p, max, sum);
        break;
      default:
        correction = soften_row<8>(s, low, high, args.tanh_factor, p, max, sum);
        break;
    }
    if (correction != 1.0f) {
      float* out = args.out + (row + r) * layout.value_padded;
      for (int d = 0; d < layout.value_padded; d += 16) {
        _mm512_storeu_ps(out + d, _mm512_mul_ps(_mm512_loadu_ps(out + d), _mm512_set1_ps(correction)));
      }
    }
  }
  settle_stores();
  const int wide = layout.value_padded / 16;
  const std::byte* values = block.value_buffer + first_group * wide * kTileBytes;
  float* out = args.out + row * layout.value_padded;
  int tile = 0;
  for (; tile + 2 <= wide; tile += 2) {
    value_tiles<kTwo, true>(probabilities, values + tile * kTileBytes, wide * kTileBytes, groups,
                            out + tile * 16, layout.value_padded * 4);
  }
  if (tile < wide) {
    value_tiles<kTwo, false>(probabilities, values + tile * kTileBytes, wide * kTileBytes, groups,
                             out + tile * 16, layout.value_padded * 4);
  }
}

// Below this many rows a tile is mostly empty and vdpbf16ps keeps up with memory.
constexpr int kFewestTileRows = 9;

void attend_amx(const AttendArgs& args) {
  if (args.rows < kFewestTileRows) {
    attend_rows<Dot16>(args);
    return;
  }
  const KvLayout& layout = *args.kv.layout;
  const int padded = (args.rows + kRowPad - 1) / kRowPad * kRowPad;
  for (int row = 0; row < padded; ++row) {
    args.max[row] = kNoScore;
    args.sum[row] = 0.0f;
  }
  __builtin_memset(args.out, 0, static_cast<std::size_t>(padded * layout.value_padded) * sizeof(float));

  std::byte* at = args.workspace;
  auto* scores = reinterpret_cast<float*>(at);
  at += kRowsTogether * kBlockTokens * 4;
  std::byte* probabilities = at;
  at += kRowsTogether * kBlockTokens * 2;
  TileBlock block;
  block.value_buffer = at;
  at += kBlockTokens * layout.value_padded * 2;
  block.key_buffer = at;
  at += kBlockTokens * layout.key_padded * 2;
  std::byte* query = at;
  Dot16::pack(args.query, reinterpret_cast<std::uint32_t*>(query), args.rows * layout.key_padded);
  __builtin_memset(query + args.rows * layout.key_padded * 2, 0,
                   static_cast<std::size_t>((padded - args.rows) * layout.key_padded * 2));

  const TileScope tiles;
  for (int first = args.begin; first < args.end; first += kBlockTokens) {
    const int last = first + kBlockTokens < args.end ? first + kBlockTokens : args.end;
    bool staged = false;  // not before some row sees the block
    for (int row = 0; row < args.rows; row += kRowsTogether) {
      const int rows = args.rows - row < kRowsTogether ? args.rows - row : kRowsTogether;
      const int first_row_token = args.first_token + row / args.group;
      const int last_row_token = args.first_token + (row + rows - 1) / args.group;
      int low = args.window > 0 ? first_row_token + 1 - args.window : 0;
      int high = args.causal && last_row_token + 1 < last ? last_row_token + 1 : last;
      low = low > first ? low : first;
      if (low >= high) continue;
      if (!staged) {
        stage_block(args, first / kPageTokens, (last - first + kPageTokens - 1) / kPageTokens, block);
        staged = true;
      }
      settle_stores();
      const int first_group = (low - first) / 32;
      const int groups = (high - first + 31) / 32 - first_group;
      if (rows > kTileRows) {
        attend_tiles<true>(args, block, first_group, groups, first + first_group * 32, row, rows, query,
                           scores, probabilities);
      } else {
        attend_tiles<false>(args, block, first_group, groups, first + first_group * 32, row, rows, query,
                            scores, probabilities);
      }
    }
  }
}

}  // namespace

const AttentionKernels& attention_avx512_bf16() {
  static constexpr AttentionKernels kKernels{"avx512_bf16", transform_head, append_rows, attend_rows<Dot16>, scale_row};
  return kKernels;
}

const AttentionKernels& attention_amx() {
  static constexpr AttentionKernels kKernels{"amx", transform_head, append_rows, attend_amx, scale_row};
  return kKernels;
}

}  // namespace mlxs::cpu
