#include "serve/answer_reader.h"

#include <iterator>
#include <utility>

namespace mlxs {

AnswerReader::AnswerReader(const AnswerShape& shape) {
  if (shape.thinks) think_.emplace(shape.thinking);
  // A grammar's answer starts behind Mistral's marker, which is a token and no text.
  if (shape.tools)
    tools_.emplace(shape.tool_format, shape.tools_forced && shape.tool_format == ToolFormat::kMistral);
}

void AnswerReader::read_tools(std::vector<ToolEvent>& events, std::vector<ToolEvent> found) {
  for (ToolEvent& event : found) {
    if (!tools_ || event.type != ToolEvent::Type::kText) {
      events.push_back(std::move(event));
    } else {
      std::ranges::move(tools_->feed(event.text), std::back_inserter(events));
    }
  }
}

std::vector<ToolEvent> AnswerReader::read(const Chunk& chunk) {
  std::vector<ToolEvent> events;
  const bool done = chunk.type == Chunk::Type::kDone;
  if (think_) {
    const bool before = think_->thinking();
    read_tools(events, think_->feed(chunk.text));
    if (!done && (before || think_->thinking())) ++reasoning_tokens_;
    if (done) read_tools(events, think_->finish());
  } else if (!chunk.text.empty()) {
    std::vector<ToolEvent> text;
    text.push_back({ToolEvent::Type::kText, chunk.text});
    read_tools(events, std::move(text));
  }
  if (done && tools_) std::ranges::move(tools_->finish(), std::back_inserter(events));
  return events;
}

}  // namespace mlxs
