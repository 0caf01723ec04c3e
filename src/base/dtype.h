// Storage types of tensors, plain and quantized, and the geometry of their blocks.
// Quantized layouts are those of the GGUF specification (ggml block formats). Pure data, no kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mlxs {

enum class DType : std::uint8_t {
  kF32, kF16, kBF16, kI8, kI16, kI32, kI64, kF64,
  kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0,
  kQ2_K, kQ3_K, kQ4_K, kQ5_K, kQ6_K,
  kIQ4_NL, kMXFP4,
};

struct DTypeInfo {
  std::string_view name;     // GGUF's spelling, e.g. "Q4_1"
  int block_elements;        // elements of one block along the row; 1 for plain types
  int block_bytes;           // bytes of one block
};

// Never fails: every enumerator has an entry.
const DTypeInfo& dtype_info(DType type);

// Bytes of a row of `elements`; elements must be a multiple of the block.
inline std::size_t row_bytes(DType type, std::int64_t elements) {
  const DTypeInfo& info = dtype_info(type);
  return static_cast<std::size_t>(elements / info.block_elements) * static_cast<std::size_t>(info.block_bytes);
}

}  // namespace mlxs
