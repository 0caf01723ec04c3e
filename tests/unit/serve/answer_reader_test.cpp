// Thinking, answer and calls told apart, however the text is cut into pieces.
#include "serve/answer_reader.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace mlxs {
namespace {

struct Read {
  std::string reasoning, text, calls;
  bool operator==(const Read&) const = default;
};

void PrintTo(const Read& read, std::ostream* out) {
  *out << "reasoning '" << read.reasoning << "', text '" << read.text << "', calls '" << read.calls << "'";
}

Read read_in_pieces(const AnswerShape& shape, std::string_view answer, std::size_t size) {
  AnswerReader reader(shape);
  Read result;
  const auto take = [&](const std::vector<ToolEvent>& events) {
    for (const ToolEvent& event : events) {
      switch (event.type) {
        case ToolEvent::Type::kText:
          result.text += event.text;
          break;
        case ToolEvent::Type::kReasoning:
          result.reasoning += event.text;
          break;
        case ToolEvent::Type::kCall:
          result.calls += (result.calls.empty() ? "" : " ") + event.text;
          break;
        case ToolEvent::Type::kArguments:
          result.calls += event.text;
          break;
      }
    }
  };
  for (std::size_t at = 0; at < answer.size(); at += size) {
    take(reader.read({.type = Chunk::Type::kToken, .text = std::string(answer.substr(at, size))}));
  }
  take(reader.read({.type = Chunk::Type::kDone}));
  return result;
}

// The same, whatever the size of the pieces.
Read read_answer(const AnswerShape& shape, std::string_view answer) {
  const Read whole = read_in_pieces(shape, answer, answer.size());
  for (std::size_t size = 1; size < answer.size(); ++size) {
    EXPECT_EQ(read_in_pieces(shape, answer, size), whole) << "in pieces of " << size;
  }
  return whole;
}

constexpr AnswerShape kThinks{.thinks = true};
constexpr AnswerShape kThinking{.thinks = true, .thinking = true};

TEST(AnswerReader, ThinkingIsNotTheAnswer) {
  EXPECT_EQ(read_answer(kThinks, "<think>\nIt is <b>Paris</b>.\n</think>\n\nParis."),
            (Read{"It is <b>Paris</b>.", "Paris.", ""}));
  EXPECT_EQ(read_answer(kThinks, "\n<think>\n\n</think>\n\nParis."), (Read{"", "Paris.", ""}));
}

TEST(AnswerReader, ThinkingThatThePromptOpened) {
  EXPECT_EQ(read_answer(kThinking, "It is Paris.\n</think>\n\nParis."), (Read{"It is Paris.", "Paris.", ""}));
  EXPECT_EQ(read_answer(kThinking, "It is cut </th"), (Read{"It is cut </th", "", ""}));
}

TEST(AnswerReader, WithoutAMarkAllIsAnswer) {
  EXPECT_EQ(read_answer(kThinks, "<thin air>"), (Read{"", "<thin air>", ""}));
  EXPECT_EQ(read_answer(kThinks, "  Paris <think>no</think>"), (Read{"", "  Paris <think>no</think>", ""}));
  EXPECT_EQ(read_answer(kThinks, "<thi"), (Read{"", "<thi", ""}));
}

TEST(AnswerReader, CallsComeBehindTheThinking) {
  const AnswerShape shape{.tools = true, .thinks = true};
  EXPECT_EQ(read_answer(shape,
                        "<think>\nA <tool_call> is due.\n</think>\n\n<tool_call>\n"
                        "{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>"),
            (Read{"A <tool_call> is due.", "", "f{\"a\": 1}"}));
}

TEST(AnswerReader, TokensOfTheThinkingAreCounted) {
  AnswerReader reader(kThinks);
  for (const char* token : {"<think>", "one", "two", "</think>", "answer"}) {
    reader.read({.type = Chunk::Type::kToken, .text = token});
  }
  EXPECT_EQ(reader.reasoning_tokens(), 4);
}

}  // namespace
}  // namespace mlxs
