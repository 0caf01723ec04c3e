// The thinking of models that write it between <think> and </think> before they answer, told apart as the
// text arrives. One reader a choice, one thread at a time; never fails: without a <think> all is answer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "serve/tool_calls.h"

namespace mlxs {

class ThinkReader {
 public:
  // begun: the prompt ends with <think> already.
  explicit ThinkReader(bool begun) : state_(begun ? State::kThinking : State::kStart) {}
  // The next piece of the answer: events of text and reasoning, in order.
  std::vector<ToolEvent> feed(std::string_view text);
  std::vector<ToolEvent> finish();  // the answer is over: what was held back
  bool thinking() const { return state_ == State::kThinking; }

 private:
  enum class State : std::uint8_t { kStart, kThinking, kGap, kAnswer };
  bool step(std::vector<ToolEvent>& events);  // false: more input is needed

  State state_;
  std::string held_;      // not decided yet
  bool written_ = false;  // something of the thinking but blanks
};

}  // namespace mlxs
