// GGUF's quantized rows taken apart, 32 weights at a time: codes, scales and minima of every block type in
// one shape. Load time only; pure functions, any thread.
#pragma once

#include <cstdint>

#include "backend/cpu/packed_format.h"
#include "base/dtype.h"

namespace mlxs::cpu {

// 32 weights of one row, taken apart: w = scale · (value(code) - zero) + min.
struct SplitBlock {
  std::uint8_t codes[kBlock];
  std::uint16_t scales[2];  // the second for groups of 16 only
  std::uint16_t mins[2];
};

// row: the row's first byte; index: the block of 32 within the row.
using Split = void (*)(const std::uint8_t* row, int index, SplitBlock& out);

// nullptr: the type is dense. What `zero` and `value(code)` are is in the packed format of the type.
Split splitter(DType type);

}  // namespace mlxs::cpu
