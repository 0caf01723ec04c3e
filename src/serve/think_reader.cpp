#include "serve/think_reader.h"

#include <algorithm>
#include <utility>

#include "serve/text_marks.h"

namespace mlxs {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>";
using Type = ToolEvent::Type;

}  // namespace

std::vector<ToolEvent> ThinkReader::feed(std::string_view text) {
  std::vector<ToolEvent> events;
  held_ += text;
  while (!held_.empty() && step(events)) {
  }
  return events;
}

std::vector<ToolEvent> ThinkReader::finish() {
  std::vector<ToolEvent> events;
  if (state_ == State::kThinking) {
    trim_end(held_);
    if (!held_.empty()) events.push_back({Type::kReasoning, std::move(held_)});
  } else if (state_ != State::kGap && !held_.empty()) {
    events.push_back({Type::kText, std::move(held_)});
  }
  held_.clear();
  return events;
}

bool ThinkReader::step(std::vector<ToolEvent>& events) {
  switch (state_) {
    case State::kStart: {
      const std::size_t first = held_.find_first_not_of(kBlanks);
      if (first == std::string::npos) return false;
      const std::string_view rest = std::string_view(held_).substr(first);
      if (kOpen.starts_with(rest) && rest != kOpen) return false;
      state_ = State::kAnswer;
      if (rest.starts_with(kOpen)) {
        held_.erase(0, first + kOpen.size());
        state_ = State::kThinking;
      }
      return true;
    }
    case State::kThinking: {
      const std::size_t end = held_.find(kClose);
      std::string part = held_.substr(0, end != std::string::npos ? end : sure_length(held_, kClose));
      held_.erase(0, end != std::string::npos ? end + kClose.size() : part.size());
      if (end != std::string::npos) {
        trim_end(part);
        state_ = State::kGap;
      }
      if (!written_) skip_blanks(part);
      if (!part.empty()) {
        written_ = true;
        events.push_back({Type::kReasoning, std::move(part)});
      }
      return end != std::string::npos;
    }
    case State::kGap:  // blanks between thinking and answer belong to neither
      skip_blanks(held_);
      if (held_.empty()) return false;
      state_ = State::kAnswer;
      return true;
    case State::kAnswer:
      events.push_back({Type::kText, std::exchange(held_, {})});
      return false;
  }
  return false;
}

}  // namespace mlxs
