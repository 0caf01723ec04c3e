#include "serve/gemma_calls.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "serve/json_text.h"
#include "serve/text_marks.h"

namespace mlxs {
namespace {

using Type = ToolEvent::Type;

constexpr std::string_view kOpen = "<start_function_call>", kClose = "<end_function_call>";
constexpr std::string_view kCall = "call:", kEscape = "<escape>";
constexpr int kDeepest = 64;

// Reads a value and writes it as JSON; false: it is none.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  bool value(std::string& out, int depth = 0) {
    skip();
    if (depth > kDeepest || rest_.empty()) return false;
    if (rest_.starts_with(kEscape)) return text(out);
    if (rest_.front() == '{') return members(out, depth);
    if (rest_.front() == '[') return elements(out, depth);
    return literal(out);
  }
  bool at_end() {
    skip();
    return rest_.empty();
  }

 private:
  void skip() { rest_.remove_prefix(std::min(rest_.find_first_not_of(kBlanks), rest_.size())); }
  bool take(char c) {
    skip();
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  bool text(std::string& out) {
    rest_.remove_prefix(kEscape.size());
    const std::size_t end = rest_.find(kEscape);
    if (end == std::string_view::npos) return false;
    append_json_string(out, rest_.substr(0, end));
    rest_.remove_prefix(end + kEscape.size());
    return true;
  }

  bool members(std::string& out, int depth) {
    take('{');
    out += '{';
    if (take('}')) return out += '}', true;
    for (;;) {
      skip();
      const std::size_t colon = rest_.find(':');
      if (colon == std::string_view::npos || colon == 0) return false;
      std::string key(rest_.substr(0, colon));
      trim_end(key);
      append_json_string(out, key);
      out += ':';
      rest_.remove_prefix(colon + 1);
      if (!value(out, depth + 1)) return false;
      if (take('}')) return out += '}', true;
      if (!take(',')) return false;
      out += ',';
    }
  }

  bool elements(std::string& out, int depth) {
    take('[');
    out += '[';
    if (take(']')) return out += ']', true;
    for (;;) {
      if (!value(out, depth + 1)) return false;
      if (take(']')) return out += ']', true;
      if (!take(',')) return false;
      out += ',';
    }
  }

  // A number, true, false or null; anything else is text that lost its marks.
  bool literal(std::string& out) {
    std::string word(rest_.substr(0, rest_.find_first_of(",]}")));
    rest_.remove_prefix(word.size());
    trim_end(word);
    if (word.empty()) return false;
    if (nlohmann::json::accept(word)) {
      out += word;
    } else {
      append_json_string(out, word);
    }
    return true;
  }

  std::string_view rest_;
};

}  // namespace

std::optional<std::string> gemma_arguments_json(std::string_view text) {
  Reader reader(text);
  std::string json;
  if (!text.starts_with('{') || !reader.value(json) || !reader.at_end()) return std::nullopt;
  return json;
}

std::vector<ToolEvent> GemmaCallReader::feed(std::string_view text) {
  std::vector<ToolEvent> events;
  held_ += text;
  for (;;) {
    const std::size_t open = held_.find(kOpen);
    const std::size_t before = open != std::string::npos ? open : sure_length(held_, kOpen);
    std::string said = held_.substr(0, before);
    held_.erase(0, before);
    if (open != std::string::npos) trim_end(said);  // blanks between text and a call belong to neither
    if (!said.empty()) events.push_back({Type::kText, std::move(said)});
    const std::size_t close = held_.find(kClose);
    if (open == std::string::npos || close == std::string::npos) return events;
    std::string_view call = std::string_view(held_).substr(kOpen.size(), close - kOpen.size());
    const std::size_t brace = call.find('{');
    std::optional<std::string> arguments;
    if (call.starts_with(kCall) && brace != std::string_view::npos)
      arguments = gemma_arguments_json(call.substr(brace));
    if (arguments) {
      std::string name(call.substr(kCall.size(), brace - kCall.size()));
      trim_end(name);
      events.push_back({Type::kCall, std::move(name)});
      events.push_back({Type::kArguments, *std::move(arguments)});
      ++calls_;
    } else {
      events.push_back({Type::kText, held_.substr(0, close + kClose.size())});
    }
    held_.erase(0, close + kClose.size());
  }
}

std::vector<ToolEvent> GemmaCallReader::finish() {
  std::vector<ToolEvent> events;
  const bool blanks = held_.find_first_not_of(kBlanks) == std::string::npos;
  if (!held_.empty() && !(blanks && calls_ > 0)) events.push_back({Type::kText, std::move(held_)});
  held_.clear();
  return events;
}

}  // namespace mlxs
