#include "backend/weight_cache_file.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <vector>

namespace mlxs {
namespace {

constexpr std::size_t kZeros = std::size_t{1} << 20;  // written at a time where blocks cannot be asked for

}  // namespace

int write_all(int fd, std::span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? errno : EIO;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return 0;
}

int allocate_blocks(int fd, std::uint64_t offset, std::size_t bytes) {
#ifdef __linux__
  int error = 0;
  do error = ::posix_fallocate(fd, static_cast<off_t>(offset), static_cast<off_t>(bytes));
  while (error == EINTR);
  if (error != EOPNOTSUPP && error != EINVAL) return error;
#endif
  const std::vector<std::byte> zeros(std::min(bytes, kZeros));
  for (std::size_t done = 0; done < bytes; done += zeros.size()) {
    const std::size_t n = std::min(zeros.size(), bytes - done);
    if (const int failed = write_all(fd, {zeros.data(), n}, offset + done)) return failed;
  }
  return 0;
}

}  // namespace mlxs
