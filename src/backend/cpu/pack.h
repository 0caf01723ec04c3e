// Turns rows as they lie in a file into panels of the packed layout (packed_format.h). Load time only.
// Pure functions; panels are independent, so the caller splits them over threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "backend/cpu/packed_format.h"
#include "base/dtype.h"

namespace mlxs::cpu {

// What a type becomes; nothing if it is no type of weights.
std::optional<Packing> packing_of(DType type);

// One panel from `rows` (1 … 16) rows, `row_stride` bytes apart. Missing lanes and padded inputs become
// zeros.
void pack_panel(DType type, const std::byte* first_row, std::size_t row_stride, int rows,
                std::int64_t columns, std::byte* panel);

// One lane of a panel back to floats: columns values. Exactly what the kernels multiply with.
void unpack_row(Packing packing, const std::byte* panel, int lane, std::int64_t columns, float* out);

}  // namespace mlxs::cpu
