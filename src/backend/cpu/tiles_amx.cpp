// AMX: weights of a panel become bf16 tiles once and are multiplied with tiles of bf16 activations, f32 sums.
// The calling thread configures its tiles
// around a task and releases them after it, so that a thread that does something else never carries 8 KiB of
// tile state through a context switch.
#include "backend/cpu/linear_rows.h"
#include "backend/cpu/tile_fold_amx.h"

namespace mlxs::cpu {
namespace {

// ---------------------------------------------------------------- activations

void input_row(const float* x, std::int64_t columns, const RowNorm& norm, std::uint16_t* out) {
  const int blocks = blocks_of(columns);
  if (x == nullptr) {
    for (int b = 0; b < blocks; ++b, out += kTileElements) _mm512_storeu_si512(out, _mm512_setzero_si512());
    return;
  }
  alignas(64) float values[kBlock];
  const RowScale scale = measure_row(x, columns, norm);
  for (int b = 0; b < blocks; ++b, out += kTileElements) {
    load_block(x, static_cast<std::int64_t>(b) * kBlock, columns, norm, scale, values);
    _mm512_storeu_si512(out, to_bf16(_mm512_load_ps(values), _mm512_load_ps(values + 16)));
  }
}

// ---------------------------------------------------------------- weights

template <Packing P>
void weight_tiles(const PanelView& panel, int first, int count, std::uint16_t* tiles) {
  for (int b = first; b < first + count; ++b, tiles += kTileElements) {
    const std::uint16_t* tile = fold_block<P>(panel, b, tiles);
    if (tile != tiles) std::memcpy(tiles, tile, kTileElements * sizeof(std::uint16_t));
  }
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
    _tile_stream_loadd(4, a0 + at, kInputBytes);
    _tile_loadd(7, b1 + at, kInputBytes);
    _tile_stream_loadd(5, a1 + at, kInputBytes);
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

// ---------------------------------------------------------------- unpacking and multiplying in one pass

// GCC's tile intrinsics do not tell the compiler that they read memory.
inline void settle_stores() { __asm__ volatile("" ::: "memory"); }

// One or two row tiles by one or two panels, over all of k: the sums stay in tiles, a block's weights live in
// the L1 cache from unpacking to product, which is one block behind.
template <Packing P, int kRowTiles, int kPanels>
void stream_panels(const PanelView& left, const PanelView& right, const std::uint16_t* a,
                   std::size_t a_stride, float* c) {
  constexpr int kSlots = 4;  // of tiles on their way from the store buffer
  alignas(64) std::uint16_t slots[kSlots][2][kTileElements];
  const std::uint16_t *b0[kSlots] = {}, *b1[kSlots] = {};
  const auto fold = [&](int b) __attribute__((always_inline)) {
    const int slot = b % kSlots;
    b0[slot] = fold_block<P>(left, b, slots[slot][0]);
    if constexpr (kPanels == 2) b1[slot] = fold_block<P>(right, b, slots[slot][1]);
  };
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  fold(0);
  for (int b = 0; b < left.blocks; ++b, a += kTileElements) {
    if (b + 1 < left.blocks) fold(b + 1);
    settle_stores();
    _tile_loadd(4, a, kInputBytes);
    _tile_loadd(6, b0[b % kSlots], kInputBytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (kPanels == 2) {
      _tile_loadd(7, b1[b % kSlots], kInputBytes);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kRowTiles == 2) {
      _tile_loadd(5, a + a_stride, kInputBytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kPanels == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  float* c1 = c + kTileRows * 2 * kTileRows;
  _tile_stored(0, c, kSumBytes);
  if constexpr (kPanels == 2) _tile_stored(1, c + kTileRows, kSumBytes);
  if constexpr (kRowTiles == 2) _tile_stored(2, c1, kSumBytes);
  if constexpr (kRowTiles == 2 && kPanels == 2) _tile_stored(3, c1 + kTileRows, kSumBytes);
  settle_stores();
}

template <Packing P>
void stream(const PanelView& left, const PanelView* right, const std::uint16_t* a, std::size_t a_stride,
            int row_tiles, float* c) {
  if (right == nullptr) {
    if (row_tiles == 2) return stream_panels<P, 2, 1>(left, left, a, a_stride, c);
    return stream_panels<P, 1, 1>(left, left, a, a_stride, c);
  }
  if (row_tiles == 2) return stream_panels<P, 2, 2>(left, *right, a, a_stride, c);
  stream_panels<P, 1, 2>(left, *right, a, a_stride, c);
}

constexpr TileKernels kKernels{
    .input_row = input_row,
    .weights = {weight_tiles<Packing::k4Min>, weight_tiles<Packing::k4>, weight_tiles<Packing::k5Min>,
                weight_tiles<Packing::k5>, weight_tiles<Packing::k8>, weight_tiles<Packing::k4Min16>,
                weight_tiles<Packing::k4Group16>, weight_tiles<Packing::k6Group16>,
                weight_tiles<Packing::kTableF16>, weight_tiles<Packing::kTableBF16>,
                weight_tiles<Packing::k8Min>, nullptr, weight_tiles<Packing::kF16>,
                weight_tiles<Packing::kBF16>},
    .multiply = multiply,
    .stream = {stream<Packing::k4Min>, stream<Packing::k4>, stream<Packing::k5Min>, stream<Packing::k5>,
               stream<Packing::k8>, stream<Packing::k4Min16>, stream<Packing::k4Group16>,
               stream<Packing::k6Group16>, stream<Packing::kTableF16>, stream<Packing::kTableBF16>,
               stream<Packing::k8Min>, nullptr, stream<Packing::kF16>, stream<Packing::kBF16>},
    .begin = begin_tiles,
    .end = end_tiles,
};

}  // namespace

const TileKernels& tiles_amx() { return kKernels; }

}  // namespace mlxs::cpu
