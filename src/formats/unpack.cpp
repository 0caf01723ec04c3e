#include "formats/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "formats/sha256.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;

// A new file that disappears again unless keep() was called.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path)
      : path_(std::move(path)), fd_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    if (fd_ < 0) refuse(errno);
  }
  ~OutputFile() {
    if (fd_ < 0) return;
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) refuse(errno);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }
  void keep() {
    if (::fsync(fd_) != 0) refuse(errno);
    ::close(std::exchange(fd_, -1));
  }

 private:
  [[noreturn]] void refuse(int error) const {
    std::error_code ignored;
    const auto space = std::filesystem::space(path_.parent_path(), ignored);
    throw Error(ErrorCode::kIo,
                fmt::format("{}: cannot be written: {} ({} bytes free)", path_.string(), std::strerror(error),
                            ignored ? 0 : space.available),
                "free space there, or set MLXS_CACHE_DIR to a folder on a larger disk");
  }
  std::filesystem::path path_;
  int fd_;
};

using Archive = std::unique_ptr<archive, int (*)(archive*)>;

[[noreturn]] void refuse_archive(const std::filesystem::path& path, std::string_view why) {
  throw Error(ErrorCode::kModelLoad, fmt::format("{}: {}", path.string(), why),
              "remove it and pull the model again");
}

Archive open_archive(const std::filesystem::path& path) {
  Archive reader(archive_read_new(), &archive_read_free);
  archive_read_support_filter_gzip(reader.get());
  archive_read_support_format_tar(reader.get());
  archive_read_support_format_zip(reader.get());
  if (archive_read_open_filename(reader.get(), path.c_str(), kBufferBytes) != ARCHIVE_OK) {
    refuse_archive(path, fmt::format("is not a readable archive: {}", archive_error_string(reader.get())));
  }
  return reader;
}

// Moves to the member's data.
void find_member(archive* reader, const std::filesystem::path& path, std::string_view member) {
  for (archive_entry* entry = nullptr;;) {
    const int status = archive_read_next_header(reader, &entry);
    if (status == ARCHIVE_EOF) refuse_archive(path, fmt::format("does not contain '{}'", member));
    if (status != ARCHIVE_OK && status != ARCHIVE_WARN) {
      refuse_archive(path, fmt::format("is damaged: {}", archive_error_string(reader)));
    }
    const char* name = archive_entry_pathname(entry);
    if (name == nullptr || name != member) continue;
    if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry) != nullptr) {
      refuse_archive(path, fmt::format("'{}' is not a regular file", member));
    }
    return;
  }
}

}  // namespace

Unpacked unpack_member(const std::filesystem::path& path, std::string_view member,
                       const std::filesystem::path& destination, std::uint64_t max_bytes,
                       const std::function<void(std::uint64_t)>& on_progress) {
  const Archive reader = open_archive(path);
  find_member(reader.get(), path, member);
  OutputFile out(destination);
  Sha256 hash;
  Unpacked result;
  std::vector<std::byte> buffer(kBufferBytes);
  while (true) {
    const la_ssize_t n = archive_read_data(reader.get(), buffer.data(), buffer.size());
    if (n < 0) refuse_archive(path, fmt::format("is damaged: {}", archive_error_string(reader.get())));
    if (n == 0) break;
    const std::span<const std::byte> block(buffer.data(), static_cast<std::size_t>(n));
    result.bytes += block.size();
    if (result.bytes > max_bytes)
      refuse_archive(path, fmt::format("'{}' is larger than {} bytes", member, max_bytes));
    hash.update(block);
    out.write(block);
    if (on_progress) on_progress(result.bytes);
  }
  out.keep();
  result.sha256 = hash.finish_hex();
  return result;
}

}  // namespace mlxs
