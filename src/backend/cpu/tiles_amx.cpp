// AMX: weights of a panel become bf16 tiles once and are multiplied with tiles of bf16 activations, f32 sums.
// Scale and zero are folded in f32 before the one rounding to bf16. The calling thread configures its tiles
// around a task and releases them after it, so that a thread that does something else never carries 8 KiB of
// tile state through a context switch.
#include "backend/cpu/linear_rows.h"
#include "backend/cpu/panel512.h"

namespace mlxs::cpu {
namespace {

// ---------------------------------------------------------------- activations

// 32 floats → 32 bf16, rounded to nearest even, NaN kept.
inline __m512i to_bf16(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

void input_tiles(const float* x, std::size_t stride, int rows, std::int64_t columns, const RowNorm& norm,
                 std::uint16_t* tiles) {
  const int blocks = blocks_of(columns);
  alignas(64) float values[kBlock];
  for (int row = 0; row < kTileRows; ++row) {
    std::uint16_t* out = tiles + row * kBlock;
    if (row >= rows) {
      for (int b = 0; b < blocks; ++b, out += kTileElements) _mm512_storeu_si512(out, _mm512_setzero_si512());
      continue;
    }
    const float* from = x + static_cast<std::size_t>(row) * stride;
    const RowScale scale = measure_row(from, columns, norm);
    for (int b = 0; b < blocks; ++b, out += kTileElements) {
      load_block(from, static_cast<std::int64_t>(b) * kBlock, columns, norm, scale, values);
      _mm512_storeu_si512(out, to_bf16(_mm512_load_ps(values), _mm512_load_ps(values + 16)));
    }
  }
}

// ---------------------------------------------------------------- weights

// The byte `i` of each lane as 1 + code / 256, by placing it in the upper mantissa: no conversion from
// integer needed.
template <int i>
inline __m512 one_plus_code(__m512i codes) {
  __m512i shifted;
  if constexpr (i == 0) shifted = _mm512_slli_epi32(codes, 15);
  if constexpr (i == 1) shifted = _mm512_slli_epi32(codes, 7);
  if constexpr (i == 2) shifted = _mm512_srli_epi32(codes, 1);
  if constexpr (i == 3) shifted = _mm512_srli_epi32(codes, 9);
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(shifted, _mm512_set1_epi32(0x007f8000),
                                                       _mm512_set1_epi32(0x3f800000), 0xea));  // (a & b) | c
}

// Lanes of two floats → lanes of (bf16, bf16). Half a unit is added before cutting; packing has made NaNs
// safe for that.
inline __m512i pair_of(__m512 even, __m512 odd) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i low = _mm512_add_epi32(_mm512_castps_si512(even), half);
  const __m512i high = _mm512_add_epi32(_mm512_castps_si512(odd), half);
  return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(low, 16), high);
}

template <Packing P>
void weight_tiles(const PanelView& panel, int first, int count, std::uint16_t* tiles) {
  constexpr PackedFormat kFormat = packed_format(P);
  constexpr int kGroups = kBlock / kFormat.group;
  constexpr int kVectors = 8 / kGroups;
  const std::byte* codes = panel.codes + static_cast<std::size_t>(first) * kFormat.code_bytes();
  const std::byte* scales = panel.scales + static_cast<std::size_t>(first) * kFormat.scale_bytes();
  for (int b = 0; b < count; ++b, codes += kFormat.code_bytes(), scales += kFormat.scale_bytes()) {
    for (std::size_t i = 0; i < kFormat.code_bytes(); i += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(codes + 4096 + i), _MM_HINT_T0);
    }
    __m512i w[8];
    load_codes<P>(codes, w);
    for (int g = 0; g < kGroups; ++g) {
      // scale · (code - zero) + min = (256 · scale) · (1 + code / 256) + (min - (256 + zero) · scale)
      const __m512 scale = load_scale<P>(scales, g);
      const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(256.0f));
      __m512 offset;
      if constexpr (kFormat.has_min) {
        offset = _mm512_sub_ps(load_scale<P>(scales, kGroups + g), factor);
      } else {
        offset = _mm512_mul_ps(scale, _mm512_set1_ps(-256.0f - kFormat.zero));
      }
      for (int i = 0; i < kVectors; ++i, tiles += 64) {
        const __m512i v = w[g * kVectors + i];
        const auto scaled = [&](__m512 x) { return _mm512_fmadd_ps(x, factor, offset); };
        _mm512_storeu_si512(tiles, pair_of(scaled(one_plus_code<0>(v)), scaled(one_plus_code<1>(v))));
        _mm512_storeu_si512(tiles + 32, pair_of(scaled(one_plus_code<2>(v)), scaled(one_plus_code<3>(v))));
      }
    }
  }
}

void weight_tiles_f16(const PanelView& panel, int first, int count, std::uint16_t* tiles) {
  // Rounded together, then (lanes of k, lanes of k+1) → pairs.
  alignas(64) static constexpr std::uint16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                                21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                                11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i interleave = _mm512_load_si512(kInterleave);
  const std::byte* at =
      panel.codes + static_cast<std::size_t>(first) * packed_format(Packing::kF16).code_bytes();
  for (int pair = 0; pair < count * kBlock / 2; ++pair, at += 64, tiles += 32) {
    const __m512 even = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
    const __m512 odd = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + 32)));
    _mm512_storeu_si512(tiles, _mm512_permutexvar_epi16(interleave, to_bf16(even, odd)));
  }
}

void weight_tiles_bf16(const PanelView& panel, int first, int count, std::uint16_t* tiles) {
  constexpr std::size_t kBytes = packed_format(Packing::kBF16).code_bytes();
  std::memcpy(tiles, panel.codes + static_cast<std::size_t>(first) * kBytes,
              static_cast<std::size_t>(count) * kBytes);
}

// ---------------------------------------------------------------- products

struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

void begin_tiles() {
  static constexpr TileConfig kConfig{};
  _tile_loadconfig(&kConfig);
}
void end_tiles() { _tile_release(); }

constexpr int kInputBytes = 64;                           // of a row of an A or B tile
constexpr int kSumBytes = 2 * kTileRows * sizeof(float);  // of a row of c

// Tiles 0-3: sums of (row tile 0 or 1) × (b0 or b1); 4, 5: A; 6, 7: B.
void multiply_2x2(const std::uint16_t* a0, const std::uint16_t* a1, int k_tiles, const std::uint16_t* b0,
                  const std::uint16_t* b1, float* c, bool accumulate) {
  float* c1 = c + kTileRows * 2 * kTileRows;
  if (accumulate) {
    _tile_loadd(0, c, kSumBytes);
    _tile_loadd(1, c + kTileRows, kSumBytes);
    _tile_loadd(2, c1, kSumBytes);
    _tile_loadd(3, c1 + kTileRows, kSumBytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int k = 0; k < k_tiles; ++k) {
    const int at = k * kTileElements;
    _tile_loadd(6, b0 + at, kInputBytes);
    _tile_loadd(4, a0 + at, kInputBytes);
    _tile_loadd(7, b1 + at, kInputBytes);
    _tile_loadd(5, a1 + at, kInputBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, c, kSumBytes);
  _tile_stored(1, c + kTileRows, kSumBytes);
  _tile_stored(2, c1, kSumBytes);
  _tile_stored(3, c1 + kTileRows, kSumBytes);
}

void multiply_1x2(const std::uint16_t* a, int k_tiles, const std::uint16_t* b0, const std::uint16_t* b1,
                  float* c, bool accumulate) {
  if (accumulate) {
    _tile_loadd(0, c, kSumBytes);
    _tile_loadd(1, c + kTileRows, kSumBytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
  }
  for (int k = 0; k < k_tiles; ++k) {
    const int at = k * kTileElements;
    _tile_loadd(4, a + at, kInputBytes);
    _tile_loadd(6, b0 + at, kInputBytes);
    _tile_loadd(7, b1 + at, kInputBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
  }
  _tile_stored(0, c, kSumBytes);
  _tile_stored(1, c + kTileRows, kSumBytes);
}

void multiply_1x1(const std::uint16_t* a, int k_tiles, const std::uint16_t* b, float* c, bool accumulate) {
  if (accumulate) {
    _tile_loadd(0, c, kSumBytes);
  } else {
    _tile_zero(0);
  }
  for (int k = 0; k < k_tiles; ++k) {
    _tile_loadd(4, a + k * kTileElements, kInputBytes);
    _tile_loadd(6, b + k * kTileElements, kInputBytes);
    _tile_dpbf16ps(0, 4, 6);
  }
  _tile_stored(0, c, kSumBytes);
}

void multiply(const std::uint16_t* a, std::size_t a_stride, int row_tiles, int k_tiles,
              const std::uint16_t* b0, const std::uint16_t* b1, float* c, bool accumulate) {
  constexpr int kSums = kTileRows * 2 * kTileRows;
  int tile = 0;
  if (b1 == nullptr) {
    for (; tile < row_tiles; ++tile, a += a_stride, c += kSums) multiply_1x1(a, k_tiles, b0, c, accumulate);
    return;
  }
  for (; tile + 2 <= row_tiles; tile += 2, a += 2 * a_stride, c += 2 * kSums) {
    multiply_2x2(a, a + a_stride, k_tiles, b0, b1, c, accumulate);
  }
  if (tile < row_tiles) multiply_1x2(a, k_tiles, b0, b1, c, accumulate);
}

constexpr TileKernels kKernels{
    .input = input_tiles,
    .weights = {weight_tiles<Packing::k4Min>, weight_tiles<Packing::k4>, weight_tiles<Packing::k5Min>,
                weight_tiles<Packing::k5>, weight_tiles<Packing::k8>, weight_tiles<Packing::k4Min16>,
                weight_tiles<Packing::k4Group16>, weight_tiles<Packing::k6Group16>,
                weight_tiles<Packing::kTableF16>, weight_tiles<Packing::kTableBF16>, nullptr,
                weight_tiles_f16, weight_tiles_bf16},
    .multiply = multiply,
    .begin = begin_tiles,
    .end = end_tiles,
};

}  // namespace

const TileKernels& tiles_amx() { return kKernels; }

}  // namespace mlxs::cpu
