#include "serve/ids.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace mlxs {

std::string random_id(std::string_view prefix) {
  thread_local std::mt19937_64 random{std::random_device{}() * 0x9E3779B97F4A7C15ull +
                                      std::random_device{}()};
  return fmt::format("{}{:016x}{:08x}", prefix, random(), static_cast<std::uint32_t>(random()));
}

std::optional<std::string> usable_request_id(std::string_view given) {
  const auto visible = [](char c) { return c > ' ' && c <= '~'; };
  if (given.empty() || given.size() > 128 || !std::ranges::all_of(given, visible)) return std::nullopt;
  return std::string(given);
}

}  // namespace mlxs
