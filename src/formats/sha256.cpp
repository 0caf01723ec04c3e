#include "formats/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <vector>

#include "mlxs/error.h"

namespace mlxs {
namespace {

void require(int ok) {
  if (ok != 1) throw Error(ErrorCode::kInternal, "OpenSSL refused to compute a SHA-256");
}

}  // namespace

struct Sha256::Impl {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Impl() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : impl_(std::make_unique<Impl>()) {
  require(impl_->context != nullptr ? EVP_DigestInit_ex(impl_->context, EVP_sha256(), nullptr) : 0);
}
Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) {
  require(EVP_DigestUpdate(impl_->context, bytes.data(), bytes.size()));
}

std::string Sha256::finish_hex() {
  std::array<unsigned char, 32> digest{};
  require(EVP_DigestFinal_ex(impl_->context, digest.data(), nullptr));
  std::string hex;
  for (const unsigned char byte : digest) fmt::format_to(std::back_inserter(hex), "{:02x}", byte);
  return hex;
}

std::string sha256_of_file(const std::filesystem::path& path,
                           const std::function<void(std::uint64_t)>& on_progress) {
  const auto refuse = [&](int error) {
    throw Error(ErrorCode::kIo, fmt::format("{}: cannot be read: {}", path.string(), std::strerror(error)));
  };
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rbe"), &std::fclose);
  if (file == nullptr) refuse(errno);
  Sha256 hash;
  std::vector<std::byte> buffer(std::size_t{1} << 20);
  std::uint64_t done = 0;
  while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), file.get())) {
    hash.update({buffer.data(), n});
    done += n;
    if (on_progress) on_progress(done);
  }
  if (std::ferror(file.get())) refuse(errno);
  return hash.finish_hex();
}

}  // namespace mlxs
