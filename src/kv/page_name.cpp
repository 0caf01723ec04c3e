#include "kv/page_name.h"

#include <openssl/sha.h>

#include <charconv>

namespace mlxs {
namespace {

PageName digest_of(std::span<const unsigned char> bytes) {
  PageName name;
  SHA256(bytes.data(), bytes.size(), name.digest.data());
  return name;
}

// Little-endian on every machine: names travel with the folder.
template <class Number>
void append(std::vector<unsigned char>& bytes, Number number) {
  for (std::size_t i = 0; i < sizeof number; ++i) {
    bytes.push_back(static_cast<unsigned char>(static_cast<std::uint64_t>(number) >> (8 * i)));
  }
}

}  // namespace

std::string PageName::hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

bool PageName::parse(std::string_view hex) {
  PageName parsed;
  if (hex.size() != 2 * digest.size()) return false;
  for (std::size_t i = 0; i < digest.size(); ++i) {
    const char* digits = hex.data() + 2 * i;
    const auto [end, error] = std::from_chars(digits, digits + 2, parsed.digest[i], 16);
    if (error != std::errc() || end != digits + 2) return false;
  }
  if (parsed.hex() != hex) return false;  // upper case
  *this = parsed;
  return true;
}

PageName root_name(std::string_view kind, std::uint64_t salt) {
  std::vector<unsigned char> bytes;
  append(bytes, salt);
  bytes.insert(bytes.end(), kind.begin(), kind.end());
  return digest_of(bytes);
}

PageName next_name(const PageName& before, std::span<const TokenId, kPageTokens> tokens) {
  std::vector<unsigned char> bytes(before.digest.begin(), before.digest.end());
  for (const TokenId token : tokens) append(bytes, static_cast<std::uint32_t>(token));
  return digest_of(bytes);
}

std::vector<PageName> page_names(const PageName& root, std::span<const TokenId> tokens) {
  std::vector<PageName> names;
  PageName name = root;
  for (std::size_t start = 0; start + kPageTokens < tokens.size(); start += kPageTokens) {
    name = next_name(name, tokens.subspan(start).first<kPageTokens>());
    names.push_back(name);
  }
  return names;
}

}  // namespace mlxs
