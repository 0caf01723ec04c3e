#include "cli/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace mlxs::cli {
namespace {

struct Unit {
  double size;
  const char* name;
};

template <std::size_t N>
std::string with_unit(double value, const std::array<Unit, N>& units) {
  for (const Unit& unit : units) {
    if (value >= unit.size) return fmt::format("{:.1f}{}", value / unit.size, unit.name);
  }
  return fmt::format("{:.0f}{}", value, units.back().name);
}

}  // namespace

std::string format_bytes(std::uint64_t bytes) {
  constexpr std::array<Unit, 5> kUnits{
      {{1e12, " TB"}, {1e9, " GB"}, {1e6, " MB"}, {1e3, " kB"}, {1e300, " B"}}};
  return with_unit(static_cast<double>(bytes), kUnits);
}

std::string format_count(std::int64_t count) {
  constexpr std::array<Unit, 4> kUnits{{{1e9, "B"}, {1e6, "M"}, {1e3, "K"}, {1e300, ""}}};
  return with_unit(static_cast<double>(count), kUnits);
}

std::string format_age(std::int64_t then_unix_s, std::int64_t now_unix_s) {
  struct Step {
    std::int64_t seconds;
    const char* name;
  };
  constexpr std::array<Step, 4> kSteps{{{7 * 86400, "week"}, {86400, "day"}, {3600, "hour"}, {60, "minute"}}};
  const std::int64_t age = now_unix_s - then_unix_s;
  for (const Step& step : kSteps) {
    if (age < step.seconds) continue;
    const std::int64_t count = age / step.seconds;
    return fmt::format("{} {}{} ago", count, step.name, count == 1 ? "" : "s");
  }
  return "just now";
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string table;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i + 1 < row.size(); ++i) table += fmt::format("{:<{}}  ", row[i], widths[i]);
    if (!row.empty()) table += row.back();
    table += '\n';
  }
  return table;
}

}  // namespace mlxs::cli
