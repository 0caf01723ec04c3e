// JSON that came with a model: parsed within limits, its values read with errors that name file and key.
// Pure functions; all throw kModelLoad.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string_view>

namespace mlxs {

inline constexpr std::size_t kMaxJsonBytes = std::size_t{64} << 20;

// At most kMaxJsonBytes. name: for messages. A key that occurs twice in one object is refused.
nlohmann::json parse_json(std::span<const std::byte> bytes, std::string_view name);
// An object.
nlohmann::json parse_json_object(std::span<const std::byte> bytes, std::string_view name);
// The same from a file; nullopt where there is none.
std::optional<nlohmann::json> read_json_object(const std::filesystem::path& path);

// The integer at object[key], nullopt if absent or null; anything else, or one outside minimum … maximum, is
// refused.
std::optional<std::int64_t> json_int(const nlohmann::json& object, std::string_view key,
                                     std::string_view name, std::int64_t minimum, std::int64_t maximum);

[[noreturn]] void fail_json(std::string_view name, std::string_view what);

}  // namespace mlxs
