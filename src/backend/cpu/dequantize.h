// The plain reading of every storage type, as the GGUF specification defines it: what packing and kernels are
// tested against, and how small vectors are loaded. Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace mlxs::cpu {

// True for every type that dequantize_row() reads (the floating-point and quantized ones).
bool can_dequantize(DType type);

// row: row_bytes(type, columns) bytes → out: columns floats. columns must be a multiple of the type's block.
// Throws kModelLoad naming a type that can_dequantize() denies.
void dequantize_row(DType type, const std::byte* row, std::int64_t columns, float* out);

}  // namespace mlxs::cpu
