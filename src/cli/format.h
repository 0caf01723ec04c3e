// Numbers and tables as people read them. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mlxs::cli {

std::string format_bytes(std::uint64_t bytes);  // "98.0 MB"; SI, as disks and downloads count
std::string format_count(std::int64_t count);   // "134.5M"
std::string format_age(std::int64_t then_unix_s, std::int64_t now_unix_s);  // "3 hours ago"
// Columns padded to their widest cell, two spaces apart, no trailing spaces. The first row is the heading.
std::string format_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace mlxs::cli
