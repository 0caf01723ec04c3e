#include "base/file_ranges.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "mlxs/error.h"

namespace mlxs {
namespace {

struct Known {
  std::size_t bytes;
  int fd;
};

std::mutex mutex;
std::map<const std::byte*, Known>& known() {
  static std::map<const std::byte*, Known> ranges;
  return ranges;
}

}  // namespace

FileRange::FileRange(std::span<const std::byte> range, int fd) : begin_(range.data()) {
  const std::lock_guard lock(mutex);
  known().insert_or_assign(begin_, Known{range.size(), fd});
}

FileRange::~FileRange() {
  if (begin_ == nullptr) return;
  const std::lock_guard lock(mutex);
  const auto found = known().find(begin_);
  ::close(found->second.fd);
  known().erase(found);
}

FileRange::FileRange(FileRange&& other) noexcept : begin_(std::exchange(other.begin_, nullptr)) {}
FileRange& FileRange::operator=(FileRange&& other) noexcept {
  std::swap(begin_, other.begin_);
  return *this;
}

FilePlace file_of(std::span<const std::byte> range) {
  const std::lock_guard lock(mutex);
  auto found = known().upper_bound(range.data());
  if (found == known().begin()) return {};
  --found;
  const auto offset = static_cast<std::size_t>(range.data() - found->first);
  if (offset > found->second.bytes || range.size() > found->second.bytes - offset) return {};
  return {found->second.fd, offset};
}

void read_file(FilePlace from, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t got = ::pread(from.fd, out.data(), out.size(), static_cast<off_t>(from.offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      throw Error(ErrorCode::kIo,
                  fmt::format("a file cannot be read at {}: {}", from.offset,
                              got == 0 ? "it has become shorter" : std::strerror(errno)),
                  "replace model files by rename, and check the disk");
    }
    from.offset += static_cast<std::uint64_t>(got);
    out = out.subspan(static_cast<std::size_t>(got));
  }
}

}  // namespace mlxs
