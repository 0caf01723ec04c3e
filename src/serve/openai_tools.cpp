#include <fmt/format.h>

#include <iterator>

#include "serve/ids.h"
#include "serve/json_text.h"
#include "serve/openai_format.h"

namespace mlxs {

// Mistral's templates insist on nine characters.
std::string new_call_id(ToolFormat format) {
  return format == ToolFormat::kMistral ? random_id("").substr(0, 9) : random_id("call_");
}

void ChoiceCalls::add(const ToolEvent& event) {
  if (event.type == ToolEvent::Type::kCall) calls_.push_back({new_call_id(format_), event.text, {}});
  if (event.type == ToolEvent::Type::kArguments) calls_.back().arguments += event.text;
}

std::string ChoiceCalls::delta(const ToolEvent& event) {
  if (event.type == ToolEvent::Type::kCall) {
    calls_.push_back({new_call_id(format_), event.text, {}});
    return fmt::format(
        R"("tool_calls":[{{"index":{},"id":"{}","type":"function","function":{{"name":{},"arguments":""}}}}])",
        calls_.size() - 1, calls_.back().id, json_string(event.text));
  }
  return fmt::format(R"("tool_calls":[{{"index":{},"function":{{"arguments":{}}}}}])", calls_.size() - 1,
                     json_string(event.text));
}

void ChoiceCalls::append_to(std::string& out) const {
  out += '[';
  for (const Call& call : calls_) {
    fmt::format_to(std::back_inserter(out),
                   R"({}{{"id":"{}","type":"function","function":{{"name":{},"arguments":{}}}}})",
                   &call == calls_.data() ? "" : ",", call.id, json_string(call.name),
                   json_string(call.arguments));
  }
  out += ']';
}

}  // namespace mlxs
