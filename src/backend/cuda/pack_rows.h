// Rows of a file's tensor in the layout that the kernels read (kernels.h, Rows). Load time; pure functions,
// any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/cuda_weight.h"

namespace mlxs::cuda {

inline std::int64_t padded_columns(std::int64_t columns) { return (columns + 63) / 64 * 64; }
std::size_t code_row_bytes(const Packing& packing, std::int64_t columns);
std::size_t scale_row_bytes(const Packing& packing, std::int64_t columns);

// codes: code_row_bytes(), scales: scale_row_bytes(); both are written whole, padding included.
void pack_row(const RawWeight& raw, const Packing& packing, std::int64_t row, std::byte* codes,
              std::byte* scales);

}  // namespace mlxs::cuda
