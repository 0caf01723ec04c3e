#include "serve/metadata_field.h"

#include <fmt/format.h>

#include <algorithm>

namespace mlxs {
namespace {

constexpr std::size_t kMostLabels = 16, kLongestKey = 64, kLongestValue = 512;

// JSON Schema counts characters.
std::size_t characters(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0u) != 0x80u; }));
}

}  // namespace

std::string read_metadata(const Json& value) {
  if (value.size() > kMostLabels) {
    refuse_field("metadata", fmt::format("metadata has {} members", value.size()),
                 fmt::format("at most {} are allowed", kMostLabels));
  }
  for (const auto& [name, member] : value.items()) {
    const std::string text = as_string("metadata." + name, member);
    if (characters(name) > kLongestKey || characters(text) > kLongestValue) {
      refuse_field("metadata",
                   fmt::format("metadata has a name over {} or a value over {} characters", kLongestKey,
                               kLongestValue),
                   "shorten it");
    }
  }
  return value.dump();
}

}  // namespace mlxs
