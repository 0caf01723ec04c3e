// Numbers and tables as people type and read them. Pure functions; parse_bytes throws kInvalidArgument.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mlxs::cli {

// "2GiB", "512MB", "1.5g", "4096": IEC units are powers of 1024, SI units powers of 1000, a bare letter is
// IEC.
std::uint64_t parse_bytes(std::string_view text);
std::string format_bytes(std::uint64_t bytes);  // "98.0 MB"; SI, as disks and downloads count
std::string format_count(std::int64_t count);   // "134.5M"
std::string format_age(std::int64_t then_unix_s, std::int64_t now_unix_s);  // "3 hours ago"
// Columns padded to their widest cell, two spaces apart, no trailing spaces. The first row is the heading.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace mlxs::cli
