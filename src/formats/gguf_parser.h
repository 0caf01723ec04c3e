// The structure of a GGUF v2/v3 file: metadata, tensor table, where each tensor's bytes lie. Nothing is
// copied but numeric arrays. Every rule that later code relies on is checked here; a violation throws
// kModelLoad.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/model_file.h"

namespace mlxs {

struct GgufContent {
  std::map<std::string_view, MetaValue, std::less<>> metadata;
  std::vector<TensorInfo> tensors;  // as listed in the file
  std::unordered_map<std::string_view, std::size_t> tensor_index;
  std::uint64_t header_bytes = 0;  // up to the end of the tensor table
};

// file: the whole file; name: for messages.
GgufContent parse_gguf(std::span<const std::byte> file, std::string_view name);

}  // namespace mlxs
