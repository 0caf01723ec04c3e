// The body of OpenAI's responses API, read and checked. Pure: bytes in, values out; throws kInvalidJson and
// kInvalidArgument that name the byte or the field. Ranges that depend on the model are the engine's.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "mlxs/engine.h"
#include "serve/sampling_defaults.h"
#include "serve/thinking.h"
#include "serve/tool_request.h"

namespace mlxs {

struct ResponsesRequest {
  GenerateParams params;  // all but the prompt
  std::string instructions;
  OrderedJson messages = OrderedJson::array();     // the input as templates read it
  OrderedJson input_items = OrderedJson::array();  // the input as the client may read it back
  ToolRequest tools;
  std::string structured_field;  // empty: no structured output
  std::string previous_id;
  Thinking thinking;
  SamplingSaid said;
  bool store = true;
  bool stream = false;
  bool logprobs = false;
  std::string metadata;              // a JSON object; empty: none
  OrderedJson echo;                  // what the response repeats of the request
  std::vector<std::string> ignored;  // fields that nothing here reads
};

Json responses_request_schema();
ResponsesRequest parse_responses_request(std::string_view body);

// "input": a string, or items: messages, calls and their results, thinking. Fills messages and input_items.
void read_responses_input(ResponsesRequest& request, const OrderedJson& input);

}  // namespace mlxs
