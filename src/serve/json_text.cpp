#include "serve/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "mlxs/error.h"

namespace mlxs {
namespace {

constexpr int kDeepest = 64;  // nesting; real requests need less than ten
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

[[noreturn]] void refuse(std::string_view body, std::size_t byte, std::string_view why) {
  const std::size_t before = std::min(byte > 0 ? byte - 1 : 0, body.size());
  const auto line = 1 + std::count(body.begin(), body.begin() + static_cast<std::ptrdiff_t>(before), '\n');
  throw Error(ErrorCode::kInvalidJson,
              fmt::format("the body is not JSON: {} at byte {}, line {}", why, byte, line),
              "send one JSON object in UTF-8");
}

// Before parsing: a document of ten million brackets would cost a hundred times its size.
void check_depth(std::string_view body) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < body.size(); ++i) {
    const char c = body[i];
    if (quoted) {
      if (c == '\\') ++i;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDeepest) refuse(body, i + 1, fmt::format("more than {} levels of nesting", kDeepest));
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

// nlohmann's text is "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while
// …".
std::string_view reason(std::string_view what) {
  const std::size_t colon = what.find(": ");
  return colon == std::string_view::npos ? what : what.substr(colon + 2);
}

// Length of the UTF-8 sequence at the start of `text`; 0 if there is none (RFC 3629: no surrogates, no
// overlongs).
std::size_t sequence_length(std::string_view text) {
  const auto byte = [text](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto continues = [&](std::size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned low = first == 0xE0 ? 0xA0 : 0x80, high = first == 0xED ? 0x9F : 0xBF;
    return byte(1) >= low && byte(1) <= high && continues(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned low = first == 0xF0 ? 0x90 : 0x80, high = first == 0xF4 ? 0x8F : 0xBF;
    return byte(1) >= low && byte(1) <= high && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

bool plain(char c) {
  return static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7F && c != '"' &&
         c != '\\';
}

void append_escaped(std::string& out, char c) {
  switch (c) {
    case '"':
      out += "\\\"";
      break;
    case '\\':
      out += "\\\\";
      break;
    case '\n':
      out += "\\n";
      break;
    case '\r':
      out += "\\r";
      break;
    case '\t':
      out += "\\t";
      break;
    default:
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned char>(c));
  }
}

}  // namespace

nlohmann::json parse_body(std::string_view body) {
  check_depth(body);
  nlohmann::json document;
  try {
    document = nlohmann::json::parse(body);
  } catch (const nlohmann::json::parse_error& error) {
    refuse(body, error.byte, reason(error.what()));
  } catch (const nlohmann::json::out_of_range& error) {  // a number beyond double's range; has no position
    throw Error(ErrorCode::kInvalidJson, fmt::format("the body is not JSON: {}", error.what()),
                "numbers must fit a double");
  }
  if (!document.is_object()) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("the body is a JSON {}", document.type_name()),
                "send a JSON object");
  }
  return document;
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const auto run =
        static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), plain) - text.begin());
    out.append(text.substr(0, run));
    text.remove_prefix(run);
    if (text.empty()) break;
    if (static_cast<unsigned char>(text.front()) < 0x80) {
      append_escaped(out, text.front());
      text.remove_prefix(1);
    } else if (const std::size_t length = sequence_length(text); length > 0) {
      out.append(text.substr(0, length));
      text.remove_prefix(length);
    } else {
      out += kReplacement;
      text.remove_prefix(1);
    }
  }
  out += '"';
}

std::string json_string(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

std::string valid_utf8(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    out.append(length > 0 ? text.substr(0, length) : kReplacement);
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return out;
}

void append_logprob(std::string& out, float logprob) {
  constexpr float kLeast = -9999.0f;
  fmt::format_to(std::back_inserter(out), "{}", std::isfinite(logprob) ? std::max(logprob, kLeast) : kLeast);
}

}  // namespace mlxs
