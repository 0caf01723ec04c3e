// API keys: who may call the server, and as whom. Only SHA-256 hashes are held, so neither a key file nor
// this process's memory gives a key away. Filled by one thread, then read by any.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/http.h"

namespace mlxs {

// Least first: an admin may do what a user may.
enum class Role : std::uint8_t { kUser, kAdmin };

struct Caller {
  std::string tenant;
  Role role = Role::kUser;
  std::optional<std::int64_t> requests_per_minute, tokens_per_minute;  // 0: no limit; unset: the server's
  std::string key_id;  // the beginning of the hash: tells keys apart, gives none away
};

class ApiKeys {
 public:
  // A key as such, from the environment. kInvalidArgument: empty, longer than 512 bytes, or given twice.
  void add(std::string_view key, Caller caller);
  // Lines "SHA256-HEX TENANT [user|admin] [rpm=N] [tpm=N]"; '#' begins a comment. Throws kIo, or
  // kInvalidArgument with the line.
  void add_file(const std::string& path);

  bool empty() const { return entries_.empty(); }
  // Null: no such key. Takes as long whichever key it is, and if it is none.
  const Caller* find(std::string_view key) const;

 private:
  using Hash = std::array<unsigned char, 32>;
  struct Entry {
    Hash hash;
    Caller caller;
  };
  static Hash hash_of(std::string_view key);
  void insert(const Hash& hash, Caller caller);

  std::vector<Entry> entries_;
};

// The keys of a running server, which may be exchanged. Keeps the old ones, which running requests refer to:
// they are few and small. Thread-safe.
class CurrentKeys {
 public:
  explicit CurrentKeys(ApiKeys keys) { replace(std::move(keys)); }
  const ApiKeys& get() const;
  // Throws kInvalidArgument if there were keys and there would be none.
  void replace(ApiKeys keys);

 private:
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<const ApiKeys>> all_;  // the last are those that count
};

// What the client sent as its key: "authorization: Bearer KEY", or "x-api-key: KEY". Empty: none.
std::string_view presented_key(const HttpRequest& request);

}  // namespace mlxs
