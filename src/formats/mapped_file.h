// A regular file mapped read-only for its lifetime; pages are shared with every process that maps it.
// Immutable, safe from any thread. The constructor throws kModelLoad (absent, not a file, no permission).
// Shrinking the file while it is mapped ends the process (SIGBUS): replace model files by rename.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "base/file_ranges.h"

namespace mlxs {

class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  std::int64_t modified_ns() const { return modified_ns_; }  // Unix time

 private:
  std::span<const std::byte> bytes_;
  FileRange range_;  // of large files
  std::int64_t modified_ns_ = 0;
};

// Asks the kernel to read the range ahead, or to forget this process's copy of it; both only advice.
void advise_will_need(std::span<const std::byte> range);
void advise_drop(std::span<const std::byte> range);

}  // namespace mlxs
