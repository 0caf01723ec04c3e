#include "engine/cache_salts.h"

#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <random>
#include <span>

#include "formats/sha256.h"
#include "mlxs/error.h"

namespace mlxs {

CacheSalts::CacheSalts() {
  std::random_device device;
  for (std::byte& byte : secret_) byte = static_cast<std::byte>(device());
}

CacheSalts::CacheSalts(const std::filesystem::path& folder) : CacheSalts() {
  const std::filesystem::path path = folder / "secret", made = folder / "secret.new";
  std::array<std::byte, 32> found{};
  std::ifstream in(path, std::ios::binary);
  if (in.read(reinterpret_cast<char*>(found.data()), found.size()) && in.peek() == EOF) {
    secret_ = found;
    return;
  }
  std::ofstream out(made, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(secret_.data()), secret_.size());
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(made, path, error);
  if (!out || error) {
    throw Error(ErrorCode::kIo, fmt::format("'{}' cannot be written", path.string()),
                "check the folder's space and permissions, or choose another with --prefix-cache-dir");
  }
}

std::uint64_t CacheSalts::of(std::string_view scope) const {
  if (scope.empty()) return 0;
  Sha256 hash;
  hash.update(secret_);
  hash.update(std::as_bytes(std::span(scope)));
  const std::string hex = hash.finish_hex();
  std::uint64_t salt = 0;
  std::from_chars(hex.data(), hex.data() + 16, salt, 16);
  return salt;
}

}  // namespace mlxs
