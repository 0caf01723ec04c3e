// What a file that is not a model looks like, for error messages. Pure functions over its first bytes.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace mlxs {

bool looks_like_gguf(std::span<const std::byte> file);
// "it is empty", "it looks like a web page (HTML)", … or its first bytes in hex.
std::string describe_content(std::span<const std::byte> file);
// What to do about it.
std::string remedy_for_content(std::span<const std::byte> file);

}  // namespace mlxs
