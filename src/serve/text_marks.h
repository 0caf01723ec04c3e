// Finding markers in text that arrives in pieces. Pure.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace mlxs {

inline constexpr std::string_view kBlanks = " \t\r\n";

inline bool blank(char c) { return kBlanks.find(c) != std::string_view::npos; }

inline void skip_blanks(std::string& text) {
  text.erase(0, std::min(text.find_first_not_of(kBlanks), text.size()));
}
inline void trim_end(std::string& text) { text.resize(text.find_last_not_of(kBlanks) + 1); }

// How many characters at the end of `text` may be the start of `marker`.
inline std::size_t started_marker(std::string_view text, std::string_view marker) {
  for (std::size_t n = std::min(text.size(), marker.size() - 1); n > 0; --n) {
    if (text.ends_with(marker.substr(0, n))) return n;
  }
  return 0;
}

// How much of `text`, which does not hold `marker`, is surely before it: blanks at its end may be dropped
// then.
inline std::size_t sure_length(std::string_view text, std::string_view marker) {
  std::size_t kept = started_marker(text, marker);
  while (kept < text.size() && blank(text[text.size() - kept - 1])) ++kept;
  return text.size() - kept;
}

}  // namespace mlxs
