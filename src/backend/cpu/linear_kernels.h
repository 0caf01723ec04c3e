// What an instruction-set path of linear() provides, as plain functions over plain structs. linear.cpp cuts
// the work into panels and calls these; each linear_<isa>.cpp fills one table. No allocation, no exceptions:
// any pool thread may call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "backend/cpu/packed_format.h"
#include "backend/ops.h"

namespace mlxs::cpu {

// A norm as floats, applied to each row of the input first. kNone leaves the row as it is.
struct RowNorm {
  enum class Kind { kNone, kRms, kLayer } kind = Kind::kNone;
  const float* gain = nullptr;  // [columns]; null: ones
  const float* bias = nullptr;  // [columns]; null: zeros
  float epsilon = 0.0f;
  bool unit_offset = false;  // the gain is stored as (gain - 1)
};

// Activations as 15-bit integers with one scale a row: x = scale · integer, |integer| ≤ 32512. As no element
// exceeds √columns times the row's root mean square, the error stays below that of bf16 for any row of less
// than 10,000 columns. 64 bytes a block:
//   AVX-512 and AMX: 32 signed high bytes, then 32 signed low bytes; integer = 256 · high + low
//   AVX2:            32 16-bit integers, each four in the order 0, 2, 1, 3
// A row with a NaN or an infinity gets a NaN scale, so everything made of it is NaN.
struct BlockSums {
  float all;  // Σ integer of the block, and of its halves
  float halves[2];
  std::int32_t integer_all;
  std::int32_t integer_halves[2];
};
struct QuantizedRows {
  std::int8_t* codes = nullptr;  // [rows][stride][64], 64-byte aligned
  BlockSums* sums = nullptr;     // [rows][stride]
  float* scales = nullptr;       // [rows]
  std::size_t stride = 0;        // blocks from row to row; odd, so that rows fall into different cache sets

  std::int8_t* block(int row, int index) const { return codes + 64 * at(row, index); }
  BlockSums& sum(int row, int index) const { return sums[at(row, index)]; }
  QuantizedRows from(int row) const { return {block(row, 0), &sum(row, 0), scales + row, stride}; }
  std::size_t at(int row, int index) const {
    return static_cast<std::size_t>(row) * stride + static_cast<std::size_t>(index);
  }
};
inline constexpr int kPadRows = 3;  // zero rows behind the last one, for kernels that take rows in fours

inline constexpr int kMostDotRows = 64;  // rows of one dot call, on any path
inline constexpr int kTileRows = 16;     // rows and columns of an f32 tile
inline constexpr int kTileElements =
    kTileRows * kBlock;  // bf16 values of an input tile: 16 rows × 32 k, or 16 pairs × 16 lanes

// What happens to a product before it is stored. Pointers are to column 0 of row 0.
struct Epilogue {
  float* y = nullptr;
  std::size_t y_stride = 0;     // floats from row to row
  const float* bias = nullptr;  // of y, or of the gate
  const float* up_bias = nullptr;
  const float* residual = nullptr;
  std::size_t residual_stride = 0;
  Activation activation = Activation::kNone;
  float soft_cap = 0.0f;
};

// Sums of one panel for some rows; `up` is the second factor of a gated product, or null.
struct PanelSums {
  const float* sums = nullptr;  // [rows], `stride` floats apart, 16 lanes each
  const float* up = nullptr;
  std::size_t stride = 0;
  int first_row = 0, rows = 0;
  int column = 0, count = 0;  // of y
};

struct LinearKernels {
  const char* name;
  int rows_at_once;  // of one dot call

  // One row, norm applied → out_columns floats (columns, or padded with zeros up to a block); out may be x.
  void (*normalize)(const float* x, std::int64_t columns, const RowNorm& norm, float* out,
                    std::int64_t out_columns);
  // Row `row` of `out`, norm applied.
  void (*quantize)(const float* x, std::int64_t columns, const RowNorm& norm, const QuantizedRows& out,
                   int row);

  // sums[row][lane] = Σ_k w[lane][k] · x[row][k] of rows_at_once rows at most.
  // dot is null where floats do as well (portable) and for dense formats; then dot_floats is there.
  std::array<void (*)(const PanelView&, const QuantizedRows& x, int rows, float* sums), kPackings> dot;
  std::array<void (*)(const PanelView&, const float* x, std::size_t stride, int rows, float* sums), kPackings>
      dot_floats;

  void (*finish)(const Epilogue& epilogue, const PanelSums& sums);
};

// bf16 tiles (AMX): from tile_rows rows up they are cheaper than dot products.
struct TileKernels {
  // One row, norm applied → its 32 k of each A tile [blocks][16 rows][32 k]; `out` is its place in the first.
  // x null: zeros, for the rows that fill up the last tile.
  void (*input_row)(const float* x, std::int64_t columns, const RowNorm& norm, std::uint16_t* out);
  // Blocks [first, first + count) of a panel → B tiles [count][16 pairs of k][16 lanes][2]. Null: no tiles
  // (f32).
  std::array<void (*)(const PanelView&, int first, int count, std::uint16_t* tiles), kPackings> weights;
  // c[row][0 … 31] (+)= A · [b0 | b1], both of `k_tiles` tiles. a_stride: elements between the A tiles of row
  // tiles. b1 null: only the first 16 columns. Between begin and end of the calling thread's tile use.
  void (*multiply)(const std::uint16_t* a, std::size_t a_stride, int row_tiles, int k_tiles,
                   const std::uint16_t* b0, const std::uint16_t* b1, float* c, bool accumulate);
  // Both at once for one or two row tiles: c = A · [left | right] over all of k, each weight unpacked and
  // used where it is. right: of the same packing, or null. Null: no tiles (f32).
  std::array<void (*)(const PanelView& left, const PanelView* right, const std::uint16_t* a,
                      std::size_t a_stride, int row_tiles, float* c),
             kPackings>
      stream;
  void (*begin)();
  void (*end)();
};

const LinearKernels& linear_portable();
#if defined(__x86_64__)
const LinearKernels& linear_avx2();
const LinearKernels& linear_avx512();
const LinearKernels& linear_amx();
const TileKernels& tiles_amx();
#endif

}  // namespace mlxs::cpu
