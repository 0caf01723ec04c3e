// Takes one file out of a .tar.gz or a wheel, hashing it on the way. The archive's own paths are compared,
// never opened.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace mlxs {

struct Unpacked {
  std::uint64_t bytes = 0;
  std::string sha256;  // lower-case hex
};

// Writes the regular file `member` to `destination` (replaced if it exists) and fsyncs it. More than
// max_bytes are refused. Throws kModelLoad (not an archive, no such member, too large) or kIo (disk);
// destination is then removed.
Unpacked unpack_member(const std::filesystem::path& archive, std::string_view member,
                       const std::filesystem::path& destination, std::uint64_t max_bytes,
                       const std::function<void(std::uint64_t done_bytes)>& on_progress = {});

}  // namespace mlxs
