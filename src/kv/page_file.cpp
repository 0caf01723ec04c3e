#include "kv/page_file.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <memory>

#include "mlxs/error.h"

namespace mlxs {
namespace {

struct Header {
  char magic[8] = {'M', 'L', 'X', 'S', 'K', 'V', '0', '1'};
  std::uint64_t page_bytes = 0;  // in this machine's order, as the page itself
  PageName name;
};
static_assert(sizeof(Header) == 48);
constexpr std::size_t kChecksumBytes = 32;

using Checksum = std::array<unsigned char, kChecksumBytes>;

Checksum checksum(const Header& header, std::span<const std::byte> page) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> hash(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  Checksum result{};
  if (!hash || EVP_DigestInit_ex(hash.get(), EVP_sha256(), nullptr) != 1 ||
      EVP_DigestUpdate(hash.get(), &header, sizeof header) != 1 ||
      EVP_DigestUpdate(hash.get(), page.data(), page.size()) != 1 ||
      EVP_DigestFinal_ex(hash.get(), result.data(), nullptr) != 1) {
    throw Error(ErrorCode::kInternal, "SHA-256 failed", "check the OpenSSL installation");
  }
  return result;
}

class File {
 public:
  File(const std::filesystem::path& path, int flags)
      : descriptor_(open(path.c_str(), flags | O_CLOEXEC, 0600)) {}
  ~File() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool is_open() const { return descriptor_ >= 0; }
  std::uint64_t size() const {
    struct stat status {};
    return fstat(descriptor_, &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
  }
  bool write_all(const void* data, std::size_t bytes) const {
    const char* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t written = ::write(descriptor_, from, bytes);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return false;
      from += written;
      bytes -= static_cast<std::size_t>(written);
    }
    return true;
  }
  bool read_all(void* data, std::size_t bytes) const {
    char* to = static_cast<char*>(data);
    while (bytes > 0) {
      const ssize_t got = ::read(descriptor_, to, bytes);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      to += got;
      bytes -= static_cast<std::size_t>(got);
    }
    return true;
  }

 private:
  int descriptor_;
};

}  // namespace

std::uint64_t page_file_bytes(std::uint64_t page_bytes) {
  return sizeof(Header) + page_bytes + kChecksumBytes;
}

void write_page_file(const std::filesystem::path& path, const PageName& name,
                     std::span<const std::byte> page) {
  Header header;
  header.page_bytes = page.size();
  header.name = name;
  const Checksum sum = checksum(header, page);
  const File file(path, O_WRONLY | O_CREAT | O_TRUNC);
  if (!file.is_open() || !file.write_all(&header, sizeof header) ||
      !file.write_all(page.data(), page.size()) || !file.write_all(sum.data(), sum.size())) {
    throw Error(ErrorCode::kIo, fmt::format("writing '{}' failed: {}", path.string(), std::strerror(errno)),
                "check the disk's space and permissions");
  }
}

std::optional<std::vector<std::byte>> read_page_file(const std::filesystem::path& path,
                                                     const PageName& name) {
  const File file(path, O_RDONLY);
  if (!file.is_open()) return std::nullopt;
  Header header;
  if (!file.read_all(&header, sizeof header)) return std::nullopt;
  const Header expected;
  if (std::memcmp(header.magic, expected.magic, sizeof header.magic) != 0 || header.name != name ||
      header.page_bytes > file.size() || page_file_bytes(header.page_bytes) != file.size()) {
    return std::nullopt;
  }
  std::vector<std::byte> page(header.page_bytes);
  Checksum sum{};
  if (!file.read_all(page.data(), page.size()) || !file.read_all(sum.data(), sum.size()) ||
      sum != checksum(header, page)) {
    return std::nullopt;
  }
  return page;
}

}  // namespace mlxs
