// The structure of a safetensors file: which tensors, of what type and shape, and where their bytes lie.
// Nothing is copied but names. Every rule of the format that later code relies on is checked here (header
// size, types, shapes, sizes, offsets in range and without overlap or hole); a violation throws kModelLoad.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"

namespace mlxs {

// The reference implementation's limit.
inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;

struct StoredType {
  std::string_view name;       // "BF16", as the file spells it
  int bits;                    // of one element
  std::optional<DType> dtype;  // nothing: no weights by itself (the codes of quantized ones)
};

struct StoredTensor {
  std::string name;
  const StoredType* type;
  std::vector<std::int64_t> shape;   // outermost first; may be empty (a scalar) and hold zeros
  std::span<const std::byte> bytes;  // exactly the tensor's
};

struct SafetensorsContent {
  std::vector<StoredTensor> tensors;  // by place in the file
  std::uint64_t header_bytes = 0;     // where the data starts
};

// file: the whole file; name: for messages.
SafetensorsContent parse_safetensors(std::span<const std::byte> file, std::string_view name);

}  // namespace mlxs
