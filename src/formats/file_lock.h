// An exclusive lock between processes and threads on a file that exists for it alone. Held for its lifetime;
// the kernel releases it when the process dies. The constructor waits; throws kIo where the file cannot be
// made.
#pragma once

#include <filesystem>
#include <functional>

namespace mlxs {

class FileLock {
 public:
  // on_wait (may be empty) is called once before waiting for another holder.
  explicit FileLock(const std::filesystem::path& path, const std::function<void()>& on_wait = {});
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace mlxs
