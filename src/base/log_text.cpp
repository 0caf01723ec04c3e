#include "base/log_text.h"

#include <fmt/format.h>

#include <cstdint>
#include <iterator>

namespace mlxs {
namespace {

// One character of UTF-8; bytes of none are taken one by one.
struct Character {
  std::string_view bytes;
  char32_t code = 0;
  bool valid = true;
};

Character first_of(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text.front());
  if (lead < 0x80) return {text.substr(0, 1), lead};
  const std::size_t size = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  const Character wrong{text.substr(0, 1), lead, false};
  if (lead < 0xC2 || lead > 0xF4 || text.size() < size) return wrong;
  char32_t code = lead & (0xFFu >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte & 0xC0) != 0x80) return wrong;
    code = code << 6 | (byte & 0x3Fu);
  }
  constexpr char32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (code < kLeast[size] || code > 0x10FFFF || surrogate) return wrong;
  return {text.substr(0, size), code};
}

// C0, DEL, C1, and what some viewers take for the end of a line.
bool controls(char32_t code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x2028 || code == 0x2029;
}

template <class Append>
void each(std::string_view text, Append append) {
  while (!text.empty()) {
    const Character next = first_of(text);
    append(next);
    text.remove_prefix(next.bytes.size());
  }
}

void append_code(char32_t code, std::string& out) {
  fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<std::uint32_t>(code));
}

}  // namespace

std::string visible(std::string_view text) {
  std::string out;
  each(text, [&out](const Character& c) {
    if (c.valid && c.code == '\n') {
      out += "\\n";
    } else if (c.valid && c.code == '\t') {
      out += "\\t";
    } else if (c.valid && !controls(c.code)) {
      out += c.bytes;
    } else if (c.code > 0xFF) {
      append_code(c.code, out);
    } else {
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<std::uint32_t>(c.code));
    }
  });
  return out;
}

std::string json_text(std::string_view text) {
  std::string out;
  each(text, [&out](const Character& c) {
    if (c.valid && controls(c.code)) {
      append_code(c.code, out);
    } else {
      if (c.code == '"' || c.code == '\\') out += '\\';
      out += c.valid ? c.bytes : "\xEF\xBF\xBD";
    }
  });
  return out;
}

std::string quiet_json(std::string_view json) {
  std::string out;
  each(json, [&out](const Character& c) {
    if (c.valid && c.code >= 0x20 && controls(c.code)) {
      append_code(c.code, out);
    } else {
      out += c.bytes;
    }
  });
  return out;
}

}  // namespace mlxs
