// What a choice's text is made of, found as it arrives: the model's thinking, its answer, its calls of tools.
// The one place where formats of models meet; every dialect writes the same events in its own words. One
// reader a choice, one thread at a time; never fails.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "mlxs/engine.h"
#include "serve/gemma_calls.h"
#include "serve/harmony_reader.h"
#include "serve/think_reader.h"
#include "serve/tool_calls.h"

namespace mlxs {

struct AnswerShape {
  bool tools = false;  // the answer may hold calls
  ToolFormat tool_format = ToolFormat::kHermes;
  bool tools_forced = false;  // the answer is calls and nothing else
  bool thinks = false;        // there may be <think>…</think> before the answer
  bool thinking = false;      // the prompt opened it already
  bool harmony = false;       // all of it is in the harmony format

  bool plain() const { return !tools && !thinks && !harmony; }  // a chunk's text is the answer's
};

class AnswerReader {
 public:
  explicit AnswerReader(const AnswerShape& shape);
  std::vector<ToolEvent> read(const Chunk& chunk);  // token or done; arguments belong to the call before them
  int reasoning_tokens() const { return reasoning_tokens_; }  // with its markers

 private:
  void read_tools(std::vector<ToolEvent>& events, std::vector<ToolEvent> found);
  void read_harmony(std::vector<ToolEvent>& events, const Chunk& chunk);

  std::optional<ThinkReader> think_;
  std::optional<ToolCallParser> tools_;
  std::optional<GemmaCallReader> gemma_;
  std::optional<HarmonyReader> harmony_;
  int reasoning_tokens_ = 0;
};

}  // namespace mlxs
