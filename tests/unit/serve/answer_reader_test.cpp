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

constexpr AnswerShape kHarmony{.harmony = true};

TEST(AnswerReader, HarmonysChannels) {
  EXPECT_EQ(read_answer(kHarmony,
                        "<|channel|>analysis<|message|>It is Paris.<|end|><|start|>assistant<|channel|>final"
                        "<|message|>Paris < Rome.<|return|>"),
            (Read{"It is Paris.", "Paris < Rome.", ""}));
  EXPECT_EQ(read_answer(kHarmony, "Without a header."), (Read{"", "Without a header.", ""}));
  EXPECT_EQ(read_answer(kHarmony, "<|channel|>analysis<|message|>cut <|en"), (Read{"cut <|en", "", ""}));
  EXPECT_EQ(read_answer(kHarmony, "<|channel|>ana"), (Read{"", "", ""}));
}

TEST(AnswerReader, HarmonysCalls) {
  EXPECT_EQ(read_answer(kHarmony,
                        "<|channel|>analysis<|message|>Look.<|end|><|start|>assistant<|channel|>commentary "
                        "to=functions.get_weather <|constrain|>json<|message|>{\"city\":\"Rome\"}<|call|>"),
            (Read{"Look.", "", "get_weather{\"city\":\"Rome\"}"}));
  EXPECT_EQ(read_answer(kHarmony,
                        "<|channel|>commentary<|message|>I call two.<|end|><|start|>assistant to=functions.a"
                        "<|channel|>commentary json<|message|><|end|><|start|>assistant to=functions.b"
                        "<|channel|>commentary<|message|>{}<|call|>"),
            (Read{"", "I call two.", "a{} b{}"}));
}

constexpr AnswerShape kGemma{.tools = true, .tool_format = ToolFormat::kGemma};

TEST(AnswerReader, GemmasCalls) {
  EXPECT_EQ(
      read_answer(kGemma,
                  "I look. <start_function_call>call:get_weather{city:<escape>a \"b\", {c}<escape>,days:3,"
                  "deep:{ok:true,list:[1.5,<escape>x<escape>]}}<end_function_call>"),
      (Read{"", "I look.",
            R"(get_weather{"city":"a \"b\", {c}","days":3,"deep":{"ok":true,"list":[1.5,"x"]}})"}));
  EXPECT_EQ(read_answer(kGemma,
                        "<start_function_call>call:a{}<end_function_call><start_function_call>"
                        "call:b{x:<escape><escape>}<end_function_call>"),
            (Read{"", "", R"(a{} b{"x":""})"}));
  const std::string broken = "<start_function_call>call:a{x:<escape>}<end_function_call>";
  EXPECT_EQ(read_answer(kGemma, broken), (Read{"", broken, ""}));
  EXPECT_EQ(read_answer(kGemma, "<start_function_call>call:a{"),
            (Read{"", "<start_function_call>call:a{", ""}));
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
