#include "formats/file_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "mlxs/error.h"

namespace mlxs {

FileLock::FileLock(const std::filesystem::path& path, const std::function<void()>& on_wait)
    : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
  const auto refuse = [&] {
    const int error = errno;
    if (fd_ >= 0) ::close(fd_);
    throw Error(ErrorCode::kIo, fmt::format("{}: cannot be locked: {}", path.string(), std::strerror(error)),
                "give this user permission to write there, or set MLXS_CACHE_DIR to another folder");
  };
  if (fd_ < 0) refuse();
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  if (errno != EWOULDBLOCK) refuse();
  if (on_wait) on_wait();
  while (::flock(fd_, LOCK_EX) != 0) {
    if (errno != EINTR) refuse();
  }
}

FileLock::~FileLock() { ::close(fd_); }

}  // namespace mlxs
