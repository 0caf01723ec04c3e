#include "formats/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "mlxs/error.h"

namespace mlxs {
namespace {

constexpr std::size_t kLarge = std::size_t{64} << 10;

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

[[noreturn]] void refuse(const std::filesystem::path& path, int error) {
  const char* hint = error == ENOENT   ? "check the path"
                     : error == EACCES ? "give this user read permission"
                                       : "check the disk and the limits of this process";
  throw Error(ErrorCode::kModelLoad,
              fmt::format("{}: cannot be read: {}", path.string(), std::strerror(error)), hint);
}

std::int64_t modified_ns_of(const struct stat& status) {
#ifdef __APPLE__
  const timespec time = status.st_mtimespec;
#else
  const timespec time = status.st_mtim;
#endif
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

// The whole pages of a range: the outer ones to prefetch, the inner ones to forget.
void advise(std::span<const std::byte> range, int advice, bool outer) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  auto begin = reinterpret_cast<std::uintptr_t>(range.data());
  auto end = begin + range.size();
  begin = (outer ? begin : begin + page - 1) / page * page;
  end = (outer ? end + page - 1 : end) / page * page;
  if (begin < end) (void)::madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  // O_NONBLOCK: a FIFO must be refused below, not waited for.
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) refuse(path, errno);
  struct stat status {};
  if (::fstat(file.fd, &status) != 0) refuse(path, errno);
  if (!S_ISREG(status.st_mode)) {
    throw Error(ErrorCode::kModelLoad, fmt::format("{}: is not a regular file", path.string()),
                "give the path of a .gguf file");
  }
  modified_ns_ = modified_ns_of(status);
  if (status.st_size == 0) return;
  const auto size = static_cast<std::size_t>(status.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (address == MAP_FAILED) refuse(path, errno);
  bytes_ = {static_cast<const std::byte*>(address), size};
  if (size >= kLarge) range_ = FileRange(bytes_, std::exchange(file.fd, -1));
}

MappedFile::~MappedFile() {
  { const FileRange gone = std::move(range_); }  // before another mapping may get the address
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void advise_will_need(std::span<const std::byte> range) { advise(range, MADV_WILLNEED, true); }
void advise_drop(std::span<const std::byte> range) { advise(range, MADV_DONTNEED, false); }

}  // namespace mlxs
