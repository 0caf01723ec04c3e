#include "serve/api_keys.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <span>
#include <sstream>
#include <utility>

namespace mlxs {
namespace {

constexpr std::size_t kLongestKey = 512;
constexpr std::size_t kLongestTenant = 128;

bool equal_ignoring_case(std::string_view a, std::string_view lower) {
  return std::equal(a.begin(), a.end(), lower.begin(), lower.end(), [](char x, char y) {
    return (x >= 'A' && x <= 'Z' ? static_cast<char>(x - 'A' + 'a') : x) == y;
  });
}

std::optional<std::array<unsigned char, 32>> parse_hash(std::string_view hex) {
  std::array<unsigned char, 32> hash{};
  if (hex.size() != 2 * hash.size()) return std::nullopt;
  for (std::size_t i = 0; i < hash.size(); ++i) {
    const char* digits = hex.data() + 2 * i;
    const auto [end, error] = std::from_chars(digits, digits + 2, hash[i], 16);
    if (error != std::errc() || end != digits + 2) return std::nullopt;
  }
  return hash;
}

constexpr const char* kLineHelp = "a line is SHA256-HEX TENANT [user|admin] [rpm=N] [tpm=N]";

[[noreturn]] void refuse_line(const std::string& path, int number, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{}, line {}: {}", path, number, what), kLineHelp,
              "api-keys");
}

// What stands behind the tenant: a role, limits. False: the word is none of these.
bool read_word(std::string_view word, Caller& caller) {
  if (word == "user" || word == "admin") {
    caller.role = word == "admin" ? Role::kAdmin : Role::kUser;
    return true;
  }
  const bool requests = word.starts_with("rpm="), tokens = word.starts_with("tpm=");
  if (!requests && !tokens) return false;
  constexpr std::int64_t kMost = 1'000'000'000'000;
  std::int64_t limit = 0;
  const auto [end, error] = std::from_chars(word.data() + 4, word.data() + word.size(), limit);
  if (error != std::errc() || end != word.data() + word.size() || limit < 0 || limit > kMost) return false;
  (requests ? caller.requests_per_minute : caller.tokens_per_minute) = limit;
  return true;
}

}  // namespace

ApiKeys::Hash ApiKeys::hash_of(std::string_view key) {
  Hash hash;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), hash.data());
  return hash;
}

void ApiKeys::insert(const Hash& hash, Caller caller) {
  for (const Entry& entry : entries_) {
    if (entry.hash != hash) continue;
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("tenants '{}' and '{}' have the same API key", entry.caller.tenant, caller.tenant),
        "give each its own");
  }
  for (const unsigned char byte : std::span(hash).first<8>()) caller.key_id += fmt::format("{:02x}", byte);
  entries_.push_back({hash, std::move(caller)});
}

void ApiKeys::add(std::string_view key, Caller caller) {
  if (key.empty() || key.size() > kLongestKey) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("an API key of {} bytes", key.size()),
                fmt::format("keys have 1 to {} bytes", kLongestKey));
  }
  insert(hash_of(key), std::move(caller));
}

void ApiKeys::add_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    throw Error(ErrorCode::kIo, fmt::format("the key file '{}' cannot be read", path),
                "check the path and its permissions", "api-keys");
  }
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string hex, tenant;
    if (!(words >> hex)) continue;
    const std::optional<Hash> hash = parse_hash(hex);
    if (!hash) refuse_line(path, number, "the hash is not 64 hexadecimal digits");
    if (!(words >> tenant)) refuse_line(path, number, "the tenant is missing");
    if (tenant.size() > kLongestTenant) {
      refuse_line(path, number, fmt::format("the tenant is longer than {} bytes", kLongestTenant));
    }
    Caller caller{.tenant = tenant};
    for (std::string word; words >> word;) {
      if (!read_word(word, caller)) {
        refuse_line(path, number, fmt::format("'{}' is neither a role nor a limit", word));
      }
    }
    insert(*hash, std::move(caller));
  }
  if (file.bad()) throw Error(ErrorCode::kIo, fmt::format("reading '{}' failed", path), {}, "api-keys");
  if (entries_.empty()) {  // a server that was told to ask for keys must not end up open
    throw Error(ErrorCode::kInvalidArgument, fmt::format("the key file '{}' has no key", path), kLineHelp,
                "api-keys");
  }
}

const Caller* ApiKeys::find(std::string_view key) const {
  const Hash hash = hash_of(key);
  const Caller* found = nullptr;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(hash.data(), entry.hash.data(), hash.size()) == 0) found = &entry.caller;
  }
  return found;
}

const ApiKeys& CurrentKeys::get() const {
  const std::lock_guard lock(mutex_);
  return *all_.back();
}

void CurrentKeys::replace(ApiKeys keys) {
  auto fresh = std::make_unique<const ApiKeys>(std::move(keys));
  const std::lock_guard lock(mutex_);
  if (fresh->empty() && !all_.empty() && !all_.back()->empty()) {
    throw Error(ErrorCode::kInvalidArgument, "there would be no API key any more",
                "a server that asks for keys goes on to do so until it ends", "api-keys");
  }
  all_.push_back(std::move(fresh));
}

std::string_view presented_key(const HttpRequest& request) {
  constexpr std::string_view kScheme = "bearer ";
  const std::string_view value = request.header("authorization");
  if (value.size() > kScheme.size() && equal_ignoring_case(value.substr(0, kScheme.size()), kScheme)) {
    const std::size_t begin = value.find_first_not_of(' ', kScheme.size());
    return begin == std::string_view::npos ? std::string_view() : value.substr(begin);
  }
  return request.header("x-api-key");
}

}  // namespace mlxs
