// The structure of a GGUF v2/v3 file: metadata, tensor table, where each tensor's bytes lie. Nothing is
// copied but numeric arrays. Every rule that later code relies on is checked here; a violation throws
// kModelLoad.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "formats/model_content.h"

namespace mlxs {

// Fills metadata, tensors and tensor_index. file: the whole file; name: for messages. Returns the bytes up to
// the end of the tensor table.
std::uint64_t parse_gguf(std::span<const std::byte> file, std::string_view name, ModelContent& content);

}  // namespace mlxs
