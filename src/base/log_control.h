// The log's level and form while the program runs, and the access log's lines. Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace mlxs {

enum class LogFormat : std::uint8_t {
  kPretty,  // a line for a person
  kJson,    // one JSON object a line: ts, level, msg; or ts, level, event "access" and the request's members
};

namespace log {

inline constexpr std::array<std::string_view, 7> kLevels{"trace", "debug",    "info", "warn",
                                                         "error", "critical", "off"};

// One of kLevels, or spdlog's "warning" and "err"; false, and no change, for another name.
bool set_level(std::string_view name);
std::string level();

void set_format(LogFormat format);
LogFormat format();
bool parse_format(std::string_view name, LogFormat& out);  // "json", "pretty"

// A line of the access log, at level info or, if it is only for debugging, debug. fields: in the log's form:
// text, or a JSON object's members.
void access(std::string_view fields, bool debug_only);
bool access_wanted(bool debug_only);

}  // namespace log
}  // namespace mlxs
