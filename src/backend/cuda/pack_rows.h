// Rows of a file's tensor in the layout that the kernels read (kernels.h, Rows). Load time; pure functions,
// any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/cuda_weight.h"

namespace mlxs::cuda {

inline constexpr std::int64_t kTileOutputs = 16;  // rows of a tile
inline std::int64_t padded_columns(std::int64_t columns) { return (columns + 63) / 64 * 64; }
inline std::int64_t padded_rows(std::int64_t rows) {
  return (rows + kTileOutputs - 1) / kTileOutputs * kTileOutputs;
}
std::size_t code_row_bytes(const Packing& packing, std::int64_t columns);
std::size_t scale_row_bytes(const Packing& packing, std::int64_t columns);

// What pack() calls the rows, if it takes them; kNone: they are packed here.
FileRows file_rows(const RawWeight& raw);

// A row of a tile, of which the tile's codes and scales (sixteen times the above) are given; what is padding
// there must be zeros already. place: 0 … 15.
void pack_row(const RawWeight& raw, const Packing& packing, std::int64_t row, int place, std::byte* codes,
              std::byte* scales);

}  // namespace mlxs::cuda
