// One page of KV as a file: a header that says what it is, the page, and a SHA-256 over both. Blocking; any
// thread.
#pragma once

#include <filesystem>
#include <optional>
#include <span>

#include "kv/page_name.h"

namespace mlxs {

// Bytes of the file that holds a page of so many.
std::uint64_t page_file_bytes(std::uint64_t page_bytes);
// Throws kIo, and leaves an incomplete file then.
void write_page_file(const std::filesystem::path& path, const PageName& name,
                     std::span<const std::byte> page);
// Nothing: there is no such file, or it is not the whole and unchanged page of that name.
std::optional<std::vector<std::byte>> read_page_file(const std::filesystem::path& path, const PageName& name);

}  // namespace mlxs
