// What a page of KV is called wherever it outlives the process: SHA-256 over everything that its content
// depends on (model, layout, salt, every token up to its end). Equal names, equal KV. Pure; throws kInternal
// if the hash fails.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace mlxs {

struct PageName {
  std::array<unsigned char, 32> digest{};

  std::string hex() const;  // 64 lower-case digits
  // False (and unchanged) unless the text is what hex() makes.
  bool parse(std::string_view hex);
  auto operator<=>(const PageName&) const = default;
};

// The name before the first page. kind: whatever makes pages incompatible, such as model and layout.
PageName root_name(std::string_view kind, std::uint64_t salt);
PageName next_name(const PageName& before, std::span<const TokenId, kPageTokens> tokens);
// Of all pages that a later request with these tokens could reuse: full, and not the last token's.
std::vector<PageName> page_names(const PageName& root, std::span<const TokenId> tokens);

}  // namespace mlxs

template <>
struct std::hash<mlxs::PageName> {
  std::size_t operator()(const mlxs::PageName& name) const noexcept {
    std::size_t value = 0;
    for (std::size_t i = 0; i < sizeof value; ++i) value = value << 8 | name.digest[i];
    return value;
  }
};
