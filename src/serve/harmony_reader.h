// The harmony format of gpt-oss, read as it arrives: messages with a header (channel, recipient) and a body,
// between control tokens that stand in the text. analysis is thinking, a recipient makes a body a call's
// arguments, the rest is answer. One reader a choice, one thread at a time; never fails: without a header all
// is answer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "serve/tool_calls.h"

namespace mlxs {

class HarmonyReader {
 public:
  std::vector<ToolEvent> feed(std::string_view text);
  std::vector<ToolEvent> finish();  // the answer is over: what was held back
  bool thinking() const { return state_ == State::kBody && kind_ == ToolEvent::Type::kReasoning; }

 private:
  enum class State : std::uint8_t { kStart, kHeader, kBody };
  bool step(std::vector<ToolEvent>& events);  // false: more input is needed
  void begin_body(std::vector<ToolEvent>& events, std::string_view header);
  void end_body(std::vector<ToolEvent>& events);
  void emit(std::vector<ToolEvent>& events, std::string_view text);

  State state_ = State::kStart;
  ToolEvent::Type kind_ = ToolEvent::Type::kText;  // of the body; kArguments: a call's
  bool any_arguments_ = false;
  std::string held_;  // not decided yet
};

}  // namespace mlxs
