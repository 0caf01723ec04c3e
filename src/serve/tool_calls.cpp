#include "serve/tool_calls.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "serve/text_marks.h"

namespace mlxs {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kHermesOpen = "<tool_call>";

// What begins calls.
std::span<const std::string_view> openings(ToolFormat format) {
  static constexpr std::array<std::string_view, 1> kHermes{kHermesOpen}, kLlama{"<|python_tag|>"},
      kMistral{"[TOOL_CALLS]"};
  static constexpr std::array<std::string_view, 2> kPhi{"functools[", "<|tool_call|>"};
  if (format == ToolFormat::kLlama3) return kLlama;
  if (format == ToolFormat::kMistral) return kMistral;
  if (format == ToolFormat::kPhi) return kPhi;
  return kHermes;
}

// What ends them; empty: nothing does.
std::string_view closing(ToolFormat format) {
  return format == ToolFormat::kHermes ? "</tool_call>" : format == ToolFormat::kPhi ? "<|/tool_call|>" : "";
}

}  // namespace

ToolFormat tool_format_of(std::string_view name) {
  if (name == "llama3") return ToolFormat::kLlama3;
  if (name == "mistral") return ToolFormat::kMistral;
  if (name == "phi") return ToolFormat::kPhi;
  if (name == "gemma") return ToolFormat::kGemma;
  if (name == "harmony") return ToolFormat::kHarmony;
  return ToolFormat::kHermes;
}

std::vector<ToolEvent> ToolCallParser::feed(std::string_view text) {
  std::vector<ToolEvent> events;
  held_ += text;
  for (bool more = true; more && !held_.empty();) {
    switch (state_) {
      case State::kText:
        more = read_text(events);
        break;
      case State::kBetween:
        more = read_between(events);
        break;
      case State::kCall:
        more = read_call(events);
        break;
    }
  }
  return events;
}

std::vector<ToolEvent> ToolCallParser::finish() {
  std::vector<ToolEvent> events;
  if (state_ == State::kCall && !reader_.named) {
    emit_text(events, reader_.raw);  // no call came of it
  } else if (state_ == State::kText &&
             (calls_ == 0 || held_.find_first_not_of(kBlanks) != std::string::npos)) {
    emit_text(events, held_);
  }
  held_.clear();
  return events;
}

void ToolCallParser::emit_text(std::vector<ToolEvent>& events, std::string_view text) {
  if (text.empty()) return;
  if (!events.empty() && events.back().type == ToolEvent::Type::kText) {
    events.back().text += text;
  } else {
    events.push_back({ToolEvent::Type::kText, std::string(text)});
  }
}

bool ToolCallParser::read_text(std::vector<ToolEvent>& events) {
  // Llama writes a call as the whole answer, without a marker.
  if (format_ == ToolFormat::kLlama3 && !started_) {
    const std::size_t first = held_.find_first_not_of(kBlanks);
    if (first == std::string::npos) return false;
    if (held_[first] == '{') {
      held_.erase(0, first);
      state_ = State::kBetween;
      return true;
    }
  }
  std::size_t found = std::string::npos, end = 0, sure = held_.size();
  for (const std::string_view marker : openings(format_)) {
    sure = std::min(sure, sure_length(held_, marker));
    const std::size_t at = held_.find(marker);
    if (at < found) {
      found = at;
      end = at + marker.size();
    }
  }
  if (found != std::string::npos) {
    // Blanks between text and a call belong to neither.
    const std::size_t text = std::string_view(held_).substr(0, found).find_last_not_of(kBlanks) + 1;
    emit_text(events, std::string_view(held_).substr(0, text));
    opened_ = held_.substr(text, end - text);
    held_.erase(0, end);
    state_ = State::kBetween;
    return true;
  }
  if (sure > 0) started_ = true;
  emit_text(events, std::string_view(held_).substr(0, sure));
  held_.erase(0, sure);
  return false;
}

bool ToolCallParser::read_between(std::vector<ToolEvent>& events) {
  skip_blanks(held_);
  if (held_.empty()) return false;
  const char c = held_.front();
  if (c == '{') {
    reader_ = {};
    state_ = State::kCall;
    return true;
  }
  const bool separator = (format_ == ToolFormat::kLlama3 && c == ';') ||
                         ((format_ == ToolFormat::kMistral || format_ == ToolFormat::kPhi) &&
                          (c == '[' || c == ',' || c == ']'));
  if (separator) {
    held_.erase(0, 1);
    return true;
  }
  if (const std::string_view close = closing(format_); !close.empty() && calls_ > 0) {
    if (held_.starts_with(close)) {
      held_.erase(0, close.size());
      state_ = State::kText;
      return true;
    }
    if (close.starts_with(held_)) return false;
  }
  if (calls_ == 0) emit_text(events, opened_);  // a marker without a call
  state_ = State::kText;
  started_ = true;
  return true;
}

bool ToolCallParser::read_call(std::vector<ToolEvent>& events) {
  std::size_t used = 0;
  while (used < held_.size() && reader_.at != CallReader::At::kDone &&
         reader_.at != CallReader::At::kBroken) {
    take(held_[used++], events);
  }
  held_.erase(0, used);
  // Arguments go out in as large pieces as they came in.
  if (reader_.named && reader_.streams && !reader_.value.empty()) {
    events.push_back({ToolEvent::Type::kArguments, std::exchange(reader_.value, {})});
  }
  if (reader_.at == CallReader::At::kDone) {
    if (reader_.named && !reader_.has_arguments) events.push_back({ToolEvent::Type::kArguments, "{}"});
    if (!reader_.named) emit_text(events, reader_.raw);  // an object, but no call
    state_ = reader_.named ? State::kBetween : State::kText;
    started_ = true;
    return true;
  }
  if (reader_.at == CallReader::At::kBroken) {
    if (!reader_.named) emit_text(events, reader_.raw);
    state_ = State::kText;
    started_ = true;
    return true;
  }
  return false;
}

void ToolCallParser::take(char c, std::vector<ToolEvent>& events) {
  using At = CallReader::At;
  CallReader& r = reader_;
  if (!r.named) r.raw += c;
  switch (r.at) {
    case At::kKey:  // "{" or "," was seen, or is c at the very start
      if (r.in_key) {
        r.key += c;
        if (r.escaped) {
          r.escaped = false;
        } else if (c == '\\') {
          r.escaped = true;
        } else if (c == '"') {
          r.key.pop_back();
          r.in_key = false;
          r.at = At::kColon;
        }
      } else if (c == '"') {
        r.in_key = true;
        r.key.clear();
      } else if (c == '}') {
        r.at = At::kDone;
      } else if (!blank(c) && !(c == '{' && r.depth++ == 0)) {
        r.at = At::kBroken;
      }
      return;
    case At::kColon:
      if (c == ':') {
        r.at = At::kValue;
      } else if (!blank(c)) {
        r.at = At::kBroken;
      }
      return;
    case At::kValue:
      if (blank(c)) return;
      r.value.clear();
      r.depth = 1;
      // An object's text is passed on as it comes; other values are read whole.
      r.streams = c == '{' && (r.key == "arguments" || r.key == "parameters");
      r.at = At::kInValue;
      [[fallthrough]];
    case At::kInValue:
      if (r.quoted) {
        r.value += c;
        if (r.escaped) {
          r.escaped = false;
        } else if (c == '\\') {
          r.escaped = true;
        } else if (c == '"') {
          r.quoted = false;
          if (r.depth == 1) end_value(events);
        }
        return;
      }
      if (c == '"') r.quoted = true;
      if (c == '{' || c == '[') ++r.depth;
      if (r.depth == 1 && (c == ',' || c == '}')) {  // behind a number or a literal
        end_value(events);
        r.at = c == ',' ? At::kKey : At::kDone;
        return;
      }
      r.value += c;
      if ((c == '}' || c == ']') && --r.depth == 1) end_value(events);
      return;
    case At::kNext:
      if (c == ',') {
        r.at = At::kKey;
      } else if (c == '}') {
        r.at = At::kDone;
      } else if (!blank(c)) {
        r.at = At::kBroken;
      }
      return;
    case At::kDone:
    case At::kBroken:
      return;
  }
}

void ToolCallParser::end_value(std::vector<ToolEvent>& events) {
  CallReader& r = reader_;
  r.at = CallReader::At::kNext;
  if (r.key == "name" && !r.named) {
    const Json name = Json::parse(r.value, nullptr, false);
    if (!name.is_string()) {
      r.at = CallReader::At::kBroken;
      return;
    }
    r.named = true;
    ++calls_;
    events.push_back({ToolEvent::Type::kCall, name.get<std::string>()});
    // Arguments that stood before the name.
    if (!r.early.empty()) events.push_back({ToolEvent::Type::kArguments, std::exchange(r.early, {})});
  } else if (r.key == "arguments" || r.key == "parameters") {
    std::string arguments = std::exchange(r.value, {});
    r.has_arguments = true;
    // Some models put the object into a string.
    if (const Json text = Json::parse(arguments, nullptr, false); text.is_string())
      arguments = text.get<std::string>();
    if (!r.named) {
      r.early = std::move(arguments);
    } else if (!arguments.empty()) {
      events.push_back({ToolEvent::Type::kArguments, std::move(arguments)});
    }
  }
  r.value.clear();
  r.streams = false;
}

}  // namespace mlxs
