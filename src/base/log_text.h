// Text from clients, files and peers as a line of the log may hold it: it begins no line of its own and moves
// no cursor. Pure.
#pragma once

#include <string>
#include <string_view>

namespace mlxs {

// Control characters and line separators as \n, \x1b or \u2028, bytes that are no UTF-8 as \xff.
std::string visible(std::string_view text);

// The inside of a JSON string; bytes that are no UTF-8 as U+FFFD.
std::string json_text(std::string_view text);

// JSON, without what its strings may hold and terminals obey.
std::string quiet_json(std::string_view json);

}  // namespace mlxs
