#include <fmt/format.h>

#include <iterator>

#include "serve/ids.h"
#include "serve/json_text.h"
#include "serve/openai_format.h"

namespace mlxs {

ChoiceTools::ChoiceTools(const AnswerInfo& info) : format_(info.tool_format) {
  if (!info.tools) return;
  // A grammar's answer starts behind Mistral's marker, which is a token and no text.
  parser_.emplace(info.tool_format, info.tools_forced && info.tool_format == ToolFormat::kMistral);
}

std::vector<ToolEvent> ChoiceTools::read(const Chunk& chunk) {
  if (chunk.type == Chunk::Type::kDone) return parser_ ? parser_->finish() : std::vector<ToolEvent>();
  return parser_ ? parser_->feed(chunk.text) : std::vector<ToolEvent>();
}

// Mistral's templates insist on nine characters.
std::string ChoiceTools::new_id() const {
  return format_ == ToolFormat::kMistral ? random_id("").substr(0, 9) : random_id("call_");
}

void ChoiceTools::add(const ToolEvent& event) {
  if (event.type == ToolEvent::Type::kCall) calls_.push_back({new_id(), event.text, {}});
  if (event.type == ToolEvent::Type::kArguments) calls_.back().arguments += event.text;
}

std::string ChoiceTools::delta(const ToolEvent& event) {
  if (event.type == ToolEvent::Type::kCall) {
    calls_.push_back({new_id(), event.text, {}});
    return fmt::format(
        R"("tool_calls":[{{"index":{},"id":"{}","type":"function","function":{{"name":{},"arguments":""}}}}])",
        calls_.size() - 1, calls_.back().id, json_string(event.text));
  }
  return fmt::format(R"("tool_calls":[{{"index":{},"function":{{"arguments":{}}}}}])", calls_.size() - 1,
                     json_string(event.text));
}

void ChoiceTools::append_to(std::string& out) const {
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
