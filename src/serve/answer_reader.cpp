#include "serve/answer_reader.h"

#include <iterator>
#include <utility>

namespace mlxs {

AnswerReader::AnswerReader(const AnswerShape& shape) {
  if (shape.harmony) {
    harmony_.emplace();
    return;
  }
  if (shape.thinks) think_.emplace(shape.thinking);
  // A grammar's answer starts behind Mistral's marker, which is a token and no text.
  if (shape.tools && shape.tool_format == ToolFormat::kGemma) {
    gemma_.emplace();
  } else if (shape.tools) {
    tools_.emplace(shape.tool_format, shape.tools_forced && shape.tool_format == ToolFormat::kMistral);
  }
}

void AnswerReader::read_tools(std::vector<ToolEvent>& events, std::vector<ToolEvent> found) {
  for (ToolEvent& event : found) {
    if (event.type != ToolEvent::Type::kText || !(tools_ || gemma_)) {
      events.push_back(std::move(event));
    } else {
      std::ranges::move(tools_ ? tools_->feed(event.text) : gemma_->feed(event.text),
                        std::back_inserter(events));
    }
  }
}

void AnswerReader::read_harmony(std::vector<ToolEvent>& events, const Chunk& chunk) {
  const bool before = harmony_->thinking();
  events = harmony_->feed(chunk.text);
  if (chunk.type == Chunk::Type::kDone) {
    std::ranges::move(harmony_->finish(), std::back_inserter(events));
  } else if (before || harmony_->thinking()) {
    ++reasoning_tokens_;
  }
}

std::vector<ToolEvent> AnswerReader::read(const Chunk& chunk) {
  std::vector<ToolEvent> events;
  if (harmony_) {
    read_harmony(events, chunk);
    return events;
  }
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
  if (done && gemma_) std::ranges::move(gemma_->finish(), std::back_inserter(events));
  return events;
}

}  // namespace mlxs
