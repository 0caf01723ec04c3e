// The dot products of the AVX-512 path on int8 tiles, for seven rows and more: the same integers and the same
// f32 sums, so a row's result does not depend on how many rows share its step. Weights stay packed in memory;
// a block costs two tile products (high and low bytes of the activations) for up to 16 rows, then a scaling
// that runs one block behind.
#include "backend/cpu/linear_rows.h"
#include "backend/cpu/panel512.h"

namespace mlxs::cpu {
namespace {

constexpr int kFewestRows = 7;  // fewer are faster with VNNI (measured)

struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

// Tiles 0-3: sums; 4, 5: high and low bytes, [R][group]; 6: codes, [group / 4][16 lanes × 4].
template <int R, int kGroup>
constexpr TileConfig make_config() {
  TileConfig config;
  for (int t = 0; t < 4; ++t) {
    config.row_bytes[t] = 64;
    config.rows[t] = R;
  }
  for (int t = 4; t < 6; ++t) {
    config.row_bytes[t] = kGroup;
    config.rows[t] = R;
  }
  config.row_bytes[6] = 64;
  config.rows[6] = kGroup / 4;
  return config;
}

// Products of one group of one block, [high or low][row][lane].
struct alignas(64) Products {
  std::int32_t high[kTileRows][kLanes];
  std::int32_t low[kTileRows][kLanes];
};

// One block after the other passes three stages, each a block behind the one before, so that no stage waits
// for the stores of the last: unpack codes to bytes → multiply tiles → scale and add.
template <Packing P, int R>
struct Stages {
  static constexpr PackedFormat kFormat = packed_format(P);
  static constexpr int kGroups = kBlock / kFormat.group;
  static constexpr int kVectors = 8 / kGroups;
  static constexpr bool kUnpacks =
      kFormat.codes != Codes::k8;  // 8-bit codes lie in memory as the tile wants them

  Stages(const PanelView& of_panel, const QuantizedRows& of_x) : panel(of_panel), x(of_x) {}  // no zeroing

  const PanelView& panel;
  const QuantizedRows& x;
  alignas(64) std::byte bytes[2][512];
  Products products[2][kGroups];

  const std::byte* codes(int b) const {
    return panel.codes + static_cast<std::size_t>(b) * kFormat.code_bytes();
  }

  [[gnu::always_inline]] void unpack(int b) {
    const std::byte* from = codes(b);
    prefetch_block<P>(panel, b);
    if constexpr (kUnpacks) {
      __m512i w[8];
      load_codes<P>(from, w);
      for (int v = 0; v < 8; ++v) {  // signed: codes that have a min are below 32
        if constexpr (!kFormat.has_min)
          w[v] = _mm512_sub_epi8(w[v], _mm512_set1_epi8(static_cast<char>(kFormat.zero)));
        _mm512_store_si512(bytes[b % 2] + 64 * v, w[v]);
      }
    }
  }

  [[gnu::always_inline]] void multiply(int b) {
    const std::byte* from = kUnpacks ? bytes[b % 2] : codes(b);
    const std::int8_t* q = x.block(0, b);
    const auto row_bytes = static_cast<long>(x.stride * 64);
    for (int g = 0; g < kGroups; ++g) {
      Products& out = products[b % 2][g];
      _tile_loadd(6, from + 64 * kVectors * g, 64);
      _tile_loadd(4, q + kFormat.group * g, row_bytes);
      _tile_loadd(5, q + 32 + kFormat.group * g, row_bytes);
      _tile_zero(0);
      _tile_zero(1);
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 5, 6);
      _tile_stored(0, out.high, 64);
      _tile_stored(1, out.low, 64);
    }
  }

  [[gnu::always_inline]] void scale_and_add(int b, __m512 (&total)[R]) const {
    const std::byte* scales = panel.scales + static_cast<std::size_t>(b) * kFormat.scale_bytes();
    for (int g = 0; g < kGroups; ++g) {
      const __m512 scale = load_scale<P>(scales, g);
      const __m512 min = load_min<P>(scales, g);
      const Products& in = products[b % 2][g];
      const BlockSums* sum = &x.sum(0, b);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const __m512i high = _mm512_slli_epi32(_mm512_load_si512(in.high[r]), 8);
        __m512i dot = _mm512_add_epi32(high, _mm512_load_si512(in.low[r]));
        if constexpr (kFormat.codes == Codes::k8 && kFormat.has_min) {  // the tile held code - 128
          dot = _mm512_add_epi32(dot, _mm512_set1_epi32(128 * sum->integer_all));
        }
        add_product<P>(dot, scale, min, *sum, g, total[r]);
        sum += x.stride;
      }
    }
  }
};

template <Packing P, int R>
void dot_tiles(const PanelView& panel, const QuantizedRows& x, float* sums) {
  static constexpr TileConfig kConfig = make_config<R, packed_format(P).group>();
  _tile_loadconfig(&kConfig);
  __m512 total[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) total[r] = _mm512_setzero_ps();
  Stages<P, R> stages{panel, x};
  const int blocks = panel.blocks;
  stages.unpack(0);
  if (blocks > 1) stages.unpack(1);
  stages.multiply(0);
  for (int b = 0; b + 2 < blocks; ++b) {
    stages.unpack(b + 2);  // into the bytes of b, which are multiplied
    stages.multiply(b + 1);
    stages.scale_and_add(b, total);
  }
  if (blocks > 1) {
    stages.multiply(blocks - 1);
    stages.scale_and_add(blocks - 2, total);
  }
  stages.scale_and_add(blocks - 1, total);
  _tile_release();
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    _mm512_storeu_ps(sums + r * kLanes, _mm512_mul_ps(total[r], _mm512_set1_ps(x.scales[r])));
  }
}

template <Packing P>
void dot(const PanelView& panel, const QuantizedRows& x, int rows, float* sums) {
  if (rows < kFewestRows) return linear_avx512().dot[static_cast<std::size_t>(P)](panel, x, rows, sums);
  if (rows <= 8) return dot_tiles<P, 8>(panel, x, sums);
  if (rows <= 12) return dot_tiles<P, 12>(panel, x, sums);
  dot_tiles<P, 16>(panel, x, sums);
}

template <Packing P>
void dot_floats(const PanelView& panel, const float* x, std::size_t stride, int rows, float* sums) {
  const auto few = linear_avx512().dot_floats[static_cast<std::size_t>(P)];
  const int at_once = linear_avx512().rows_at_once;
  for (int row = 0; row < rows; row += at_once) {
    few(panel, x + static_cast<std::size_t>(row) * stride, stride,
        rows - row < at_once ? rows - row : at_once, sums + row * kLanes);
  }
}

void normalize(const float* x, std::int64_t columns, const RowNorm& norm, float* out,
               std::int64_t out_columns) {
  linear_avx512().normalize(x, columns, norm, out, out_columns);
}
void quantize(const float* x, std::int64_t columns, const RowNorm& norm, const QuantizedRows& out, int row) {
  linear_avx512().quantize(x, columns, norm, out, row);
}
void finish(const Epilogue& epilogue, const PanelSums& sums) { linear_avx512().finish(epilogue, sums); }

constexpr LinearKernels kKernels{
    .name = "amx",
    .rows_at_once = kTileRows,
    .normalize = normalize,
    .quantize = quantize,
    .dot = {dot<Packing::k4Min>, dot<Packing::k4>, dot<Packing::k5Min>, dot<Packing::k5>, dot<Packing::k8>,
            dot<Packing::k4Min16>, dot<Packing::k4Group16>, dot<Packing::k6Group16>, dot<Packing::kTableF16>,
            dot<Packing::kTableBF16>, dot<Packing::k8Min>},
    .dot_floats = {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
                   nullptr, dot_floats<Packing::kF32>, dot_floats<Packing::kF16>, dot_floats<Packing::kBF16>},
    .finish = finish,
};

}  // namespace

const LinearKernels& linear_amx() { return kKernels; }

}  // namespace mlxs::cpu
