// Storage types of tensors, plain and quantized, and the geometry of their blocks.
// Quantized layouts are those of the GGUF specification (ggml block formats), and those of MLX and FP8 files,
// whose scales lie in tensors of their own (GroupScales). Pure data, no kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace mlxs {

enum class DType : std::uint8_t {
  kF32,
  kF16,
  kBF16,
  kI8,
  kI16,
  kI32,
  kI64,
  kF64,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kMXFP4,
  // With GroupScales. MLX: unsigned codes as a little-endian bit stream, w = scale · code + bias.
  kMlx2,
  kMlx3,
  kMlx4,
  kMlx5,
  kMlx6,
  kMlx8,
  kMlxFp4,  // E2M1 codes in order, low nibble first, one kE8M0 scale per 32
  kQ8Min,   // what MLX's 6 and 8 bits become, in no file: f16 scale, f16 min, 32 unsigned codes
  kF8E4M3,  // one scale per block of rows and columns (128 × 128)
  kE8M0,    // scales only: 2^(value - 127)
};

struct DTypeInfo {
  std::string_view name;  // as users know it: GGUF's spelling, e.g. "Q4_1"
  int block_elements;     // elements of one block along the row; 1 for plain types
  int block_bytes;        // bytes of one block
};

// Never fails: every enumerator has an entry.
const DTypeInfo& dtype_info(DType type);

// Bytes of a row of `elements`; elements must be a multiple of the block.
inline std::size_t row_bytes(DType type, std::int64_t elements) {
  const DTypeInfo& info = dtype_info(type);
  return static_cast<std::size_t>(elements / info.block_elements) *
         static_cast<std::size_t>(info.block_bytes);
}

// Scales and biases beside a tensor's codes: row-major [ceil(rows / group_rows), ceil(columns / group)].
struct GroupScales {
  DType type = DType::kF32;  // of both: F32, F16, BF16 or E8M0
  int group = 0;             // columns that share a scale; 0: the tensor's type needs none
  int group_rows = 1;
  std::span<const std::byte> scales;
  std::span<const std::byte> biases;  // empty: all zero

  explicit operator bool() const { return group != 0; }
};

}  // namespace mlxs
