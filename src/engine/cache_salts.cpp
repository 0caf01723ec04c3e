#include "engine/cache_salts.h"

#include <charconv>
#include <random>
#include <span>

#include "formats/sha256.h"

namespace mlxs {

CacheSalts::CacheSalts() {
  std::random_device device;
  for (std::byte& byte : secret_) byte = static_cast<std::byte>(device());
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
