// Names of cache scopes (a tenant, a client's cache_salt) as the numbers that keep them apart in the prefix
// tree. A number depends on a secret, so that nobody can look for a name whose number is another scope's.
// Immutable; any thread. Throws kInternal if the hash fails.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>

namespace mlxs {

class CacheSalts {
 public:
  CacheSalts();  // a secret of this object's own
  // The secret in this folder, made if there is none: numbers outlive the process, as pages on disk need.
  // Throws kIo. One process at a time.
  explicit CacheSalts(const std::filesystem::path& folder);

  std::uint64_t of(std::string_view scope) const;  // 0 for the empty one, which everybody shares

 private:
  std::array<std::byte, 32> secret_{};
};

}  // namespace mlxs
