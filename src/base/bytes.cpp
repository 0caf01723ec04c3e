#include "base/bytes.h"

#include <fmt/format.h>

#include <cctype>
#include <cmath>
#include <cstdlib>

#include "mlxs/error.h"

namespace mlxs {

std::uint64_t parse_bytes(std::string_view text) {
  const Error error(ErrorCode::kInvalidArgument, fmt::format("'{}' is not a number of bytes", text),
                    "write for example 2GiB, 512MB or 4096");
  const std::string copy(text);
  char* end = nullptr;
  const double number = std::strtod(copy.c_str(), &end);
  if (end == copy.c_str() || !std::isfinite(number) || number < 0) throw error;

  std::string unit;
  for (; *end != '\0'; ++end) {
    if (*end != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*end)));
  }
  int power = 0;
  if (!unit.empty() && unit != "b") {
    const auto position = std::string_view("kmgt").find(unit.front());
    if (position == std::string_view::npos) throw error;
    power = static_cast<int>(position) + 1;
  }
  const std::string_view rest = power > 0 ? std::string_view(unit).substr(1) : std::string_view();
  if (!rest.empty() && rest != "b" && rest != "ib") throw error;
  const double bytes = number * std::pow(rest == "b" ? 1000.0 : 1024.0, power);
  if (bytes >= 0x1p63) throw error;
  return static_cast<std::uint64_t>(bytes);
}

std::string exact_bytes(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (unit + 1 < std::size(kUnits) && bytes != 0 && bytes % 1024 == 0) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{}{}", bytes, kUnits[unit]);
}

}  // namespace mlxs
