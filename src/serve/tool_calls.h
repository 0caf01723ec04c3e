// Tool calls in what a model writes, found as the text arrives. One parser a choice, one thread at a time;
// never fails: what is no whole call by the model's own format stays text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mlxs {

enum class ToolFormat : std::uint8_t {
  kHermes,   // <tool_call>{"name": …, "arguments": {…}}</tool_call>, also Qwen's
  kLlama3,   // {"name": …, "parameters": {…}}, several joined by ";", maybe behind <|python_tag|>
  kMistral,  // [TOOL_CALLS][{"name": …, "arguments": {…}}, …]
  kPhi,      // functools[{"name": …, "arguments": {…}}, …], or between <|tool_call|> and <|/tool_call|>
  kGemma,    // gemma_calls.h
  kHarmony,  // harmony_reader.h
};
ToolFormat tool_format_of(std::string_view name);  // ModelInfo::tool_format; unknown names are Hermes

struct ToolEvent {
  enum class Type : std::uint8_t { kText, kReasoning, kCall, kArguments } type = Type::kText;
  std::string text;  // text, of the answer or of the thinking before it; the function's name; the next piece
                     // of its arguments' JSON
};

// Of formats that write calls as JSON; the others have readers of their own.
class ToolCallParser {
 public:
  // begun: the answer starts behind the format's marker.
  explicit ToolCallParser(ToolFormat format, bool begun = false)
      : format_(format), state_(begun ? State::kBetween : State::kText) {}
  // The next piece of the answer. Events in order; arguments belong to the call before them.
  std::vector<ToolEvent> feed(std::string_view text);
  std::vector<ToolEvent> finish();  // the answer is over: what was held back
  int calls() const { return calls_; }

 private:
  enum class State : std::uint8_t { kText, kBetween, kCall };
  // One {"name": …, "arguments": …} object, read character by character.
  struct CallReader {
    enum class At : std::uint8_t { kKey, kColon, kValue, kInValue, kNext, kDone, kBroken } at = At::kKey;
    std::string raw, key, value, early;  // early: arguments that came before the name
    int depth = 0;
    bool quoted = false, escaped = false, in_key = false, named = false, streams = false,
         has_arguments = false;
  };

  bool read_text(std::vector<ToolEvent>& events);     // false: more input is needed
  bool read_between(std::vector<ToolEvent>& events);  // after a call's marker, or after a call
  bool read_call(std::vector<ToolEvent>& events);
  void take(char c, std::vector<ToolEvent>& events);
  void end_value(std::vector<ToolEvent>& events);
  void emit_text(std::vector<ToolEvent>& events, std::string_view text);

  ToolFormat format_;
  State state_;
  std::string held_;    // not decided yet
  std::string opened_;  // the marker that was read, with the blanks before it
  CallReader reader_;
  bool started_ = false;  // something but blanks was text
  int calls_ = 0;
};

}  // namespace mlxs
