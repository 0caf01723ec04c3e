// Which open file mapped memory is of: who wants it in other memory reads it from there, in large pieces,
// instead of faulting it in page by page. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mlxs {

// Known to file_of() for its lifetime.
class FileRange {
 public:
  FileRange() = default;
  // range: the file's bytes from the first on; fd: becomes this object's, which closes it.
  FileRange(std::span<const std::byte> range, int fd);
  ~FileRange();
  FileRange(FileRange&& other) noexcept;
  FileRange& operator=(FileRange&& other) noexcept;

 private:
  const std::byte* begin_ = nullptr;  // null: of nothing
};

struct FilePlace {
  int fd = -1;  // of no file that is known
  std::uint64_t offset = 0;
  explicit operator bool() const { return fd >= 0; }
};
FilePlace file_of(std::span<const std::byte> range);

// Throws kIo; the file may have become shorter.
void read_file(FilePlace from, std::span<std::byte> out);

}  // namespace mlxs
