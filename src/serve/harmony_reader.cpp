#include "serve/harmony_reader.h"

#include <algorithm>
#include <array>
#include <utility>

#include "serve/text_marks.h"

namespace mlxs {
namespace {

using Type = ToolEvent::Type;

constexpr std::string_view kMessage = "<|message|>", kChannel = "<|channel|>", kFunctions = "functions.";
// What ends a body: the message's end, or the next header.
constexpr std::array<std::string_view, 5> kEnds{"<|end|>", "<|call|>", "<|return|>", "<|start|>", kChannel};

// The word behind `mark` in a header; empty: none.
std::string_view word_after(std::string_view header, std::string_view mark) {
  const std::size_t at = header.find(mark);
  if (at == std::string_view::npos) return {};
  const std::string_view rest = header.substr(at + mark.size());
  return rest.substr(0, rest.find_first_of(" \t\r\n<"));
}

}  // namespace

std::vector<ToolEvent> HarmonyReader::feed(std::string_view text) {
  std::vector<ToolEvent> events;
  held_ += text;
  while (!held_.empty() && step(events)) {
  }
  return events;
}

std::vector<ToolEvent> HarmonyReader::finish() {
  std::vector<ToolEvent> events;
  if (state_ != State::kHeader) emit(events, held_);  // a header without a body says nothing
  held_.clear();
  end_body(events);
  return events;
}

void HarmonyReader::emit(std::vector<ToolEvent>& events, std::string_view text) {
  if (text.empty()) return;
  any_arguments_ |= kind_ == Type::kArguments;
  events.push_back({kind_, std::string(text)});
}

void HarmonyReader::begin_body(std::vector<ToolEvent>& events, std::string_view header) {
  std::string_view recipient = word_after(header, "to=");
  kind_ = word_after(header, kChannel) == "analysis" ? Type::kReasoning : Type::kText;
  if (recipient.empty()) return;
  if (recipient.starts_with(kFunctions)) recipient.remove_prefix(kFunctions.size());
  events.push_back({Type::kCall, std::string(recipient)});
  kind_ = Type::kArguments;
  any_arguments_ = false;
}

void HarmonyReader::end_body(std::vector<ToolEvent>& events) {
  if (state_ == State::kBody && kind_ == Type::kArguments && !any_arguments_)
    events.push_back({Type::kArguments, "{}"});
  kind_ = Type::kText;
}

bool HarmonyReader::step(std::vector<ToolEvent>& events) {
  if (state_ == State::kStart) {
    const bool undecided = std::ranges::any_of(
        kEnds, [&](std::string_view mark) { return mark.starts_with(held_) && mark.size() > held_.size(); });
    if (undecided) return false;
    state_ = held_.starts_with("<|") ? State::kHeader : State::kBody;
    return true;
  }
  if (state_ == State::kHeader) {
    const std::size_t end = held_.find(kMessage);
    if (end == std::string::npos) return false;
    begin_body(events, std::string_view(held_).substr(0, end));
    held_.erase(0, end + kMessage.size());
    state_ = State::kBody;
    return true;
  }
  std::size_t end = std::string::npos, sure = held_.size();
  for (const std::string_view mark : kEnds) {
    end = std::min(end, held_.find(mark));
    sure = std::min(sure, held_.size() - started_marker(held_, mark));
  }
  emit(events, std::string_view(held_).substr(0, std::min(end, sure)));
  if (end == std::string::npos) {
    held_.erase(0, sure);
    return false;
  }
  held_.erase(0, end);  // the mark belongs to the next header
  end_body(events);
  state_ = State::kHeader;
  return true;
}

}  // namespace mlxs
