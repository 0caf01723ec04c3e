// The calls of FunctionGemma:
// <start_function_call>call:NAME{key:<escape>text<escape>,n:1}<end_function_call>, found as the text arrives.
// A call comes out whole, its arguments turned into JSON. One reader a choice, one thread at a time; never
// fails: what is no whole call stays text.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/tool_calls.h"

namespace mlxs {

class GemmaCallReader {
 public:
  std::vector<ToolEvent> feed(std::string_view text);
  std::vector<ToolEvent> finish();  // the answer is over: what was held back

 private:
  std::string held_;  // not decided yet; within a call, from its marker on
  int calls_ = 0;
};

// {key:<escape>text<escape>,list:[1,2]} as JSON; nullopt: it is not of that form.
std::optional<std::string> gemma_arguments_json(std::string_view text);

}  // namespace mlxs
