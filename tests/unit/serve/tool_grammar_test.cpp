// What llguidance makes of the grammars of calls: which answers they let through, character by character.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "serve/tool_request.h"
#include "text/grammar.h"

namespace mlxs {
namespace {

// One token a byte from 0 to 127, spelled as byte-level vocabularies do; the last ends an answer.
class ToolGrammarTest : public ::testing::Test {
 protected:
  static constexpr int kEnd = 128;

  ToolGrammarTest() {
    for (int i = 0; i < kEnd; ++i) {
      if (i > ' ' && i < 127) {
        names_.push_back(std::string(1, static_cast<char>(i)));
      } else {  // U+0100 + n for the n-th byte that is not printable
        const int code = 0x100 + (i <= ' ' ? i : 33);
        names_.push_back({static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))});
      }
    }
    names_.push_back("<|end|>");
    const std::vector<std::string_view> views(names_.begin(), names_.end());
    std::vector<std::int64_t> types(names_.size(), 1);
    types.back() = 3;
    tokenizer_ = std::make_unique<Tokenizer>(
        TokenizerSpec{.pre = "gpt-2", .tokens = views, .token_types = types, .eos = kEnd});
    engine_ = std::make_unique<GrammarEngine>(*tokenizer_);

    request_.tools.push_back({.name = "weather",
                              .parameters = OrderedJson::parse(R"({
                                "type": "object", "properties": {"unit": {"enum": ["c", "f"]}},
                                "required": ["unit"], "additionalProperties": false})"),
                              .strict = true});
    request_.tools.push_back({.name = "note", .parameters = OrderedJson::parse(R"({
                                "type": "object", "properties": {"a": {"type": "integer"}}})")});
  }

  // How far the grammar lets the answer come: "all" if to its end.
  std::string accepts(ToolFormat format, std::string_view answer) {
    return accepts(*free_tool_grammar(request_, format), answer);
  }
  std::string accepts(const std::string& grammar, std::string_view answer) {
    const auto matcher = engine_->matcher(GrammarKind::kLark, grammar);
    const auto allows = [&](int token) {
      std::vector<std::uint32_t> bits(5, 0);
      matcher->mask(bits);
      return ((bits[static_cast<std::size_t>(token / 32)] >> (token % 32)) & 1u) != 0;
    };
    for (std::size_t i = 0; i < answer.size(); ++i) {
      if (!allows(answer[i])) return std::string(answer.substr(0, i));
      matcher->commit(answer[i]);
    }
    return allows(kEnd) ? "all" : "no end";
  }

  std::vector<std::string> names_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<GrammarEngine> engine_;
  ToolRequest request_;
};

std::string hermes(std::string_view call) { return "<tool_call>\n" + std::string(call) + "\n</tool_call>"; }

TEST_F(ToolGrammarTest, TextIsFree) {
  for (const auto format : {ToolFormat::kHermes, ToolFormat::kLlama3, ToolFormat::kPhi}) {
    EXPECT_EQ(accepts(format, ""), "all");
    EXPECT_EQ(accepts(format, "It is a <tool> or a functool,\nnot a {call}."), "all");
  }
}

TEST_F(ToolGrammarTest, StrictArgumentsObeyTheirSchema) {
  const std::string good = R"({"name": "weather", "arguments": {"unit": "c"}})";
  EXPECT_EQ(accepts(ToolFormat::kHermes, hermes(good)), "all");
  EXPECT_EQ(accepts(ToolFormat::kHermes, "I look.\n" + hermes(good) + " Done."), "all");
  EXPECT_EQ(accepts(ToolFormat::kHermes, hermes(R"({"name": "weather", "arguments": {"unit": "kelvin"}})")),
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"unit\": \"");
  EXPECT_EQ(accepts(ToolFormat::kHermes, hermes(R"({"name": "wind")")), "<tool_call>\n{\"name\": \"w");
  EXPECT_EQ(accepts(ToolFormat::kHermes, "<tool_call> no call"), "<tool_call>");
  EXPECT_EQ(accepts(ToolFormat::kHermes, "<tool_call>\n" + good), "no end");
}

TEST_F(ToolGrammarTest, OtherArgumentsAreAnyObject) {
  EXPECT_EQ(accepts(ToolFormat::kHermes, hermes(R"({"name": "note", "arguments": {"b": [1, "x"]}})")), "all");
  EXPECT_EQ(accepts(ToolFormat::kHermes, hermes(R"({"name": "note", "arguments": 1})")),
            "<tool_call>\n{\"name\": \"note\", \"arguments\": ");
}

TEST_F(ToolGrammarTest, SeveralCallsOnlyWhereTheyMayBeParallel) {
  const std::string call = R"({"name": "weather", "arguments": {"unit": "f"}})";
  EXPECT_EQ(accepts(ToolFormat::kHermes, hermes(call) + "\n" + hermes(call)), "all");
  EXPECT_EQ(accepts(ToolFormat::kPhi, "functools[" + call + ", " + call + "]"), "all");
  request_.parallel = false;
  EXPECT_EQ(accepts(ToolFormat::kPhi, "functools[" + call + "]"), "all");
  EXPECT_EQ(accepts(ToolFormat::kPhi, "functools[" + call + ", "), "functools[" + call);
}

TEST_F(ToolGrammarTest, OnlyAllowedToolsAreCalled) {
  const std::string note = R"({"name": "note", "arguments": {"a": 1}})";
  const std::string weather = R"({"name": "weather", "arguments": {"unit": "c"}})";
  EXPECT_EQ(accepts(ToolFormat::kHermes, hermes(note)), "all");
  request_.allowed = {"weather"};
  EXPECT_EQ(accepts(ToolFormat::kHermes, hermes(weather)), "all");
  EXPECT_EQ(accepts(ToolFormat::kHermes, "Nothing to call."), "all");
  EXPECT_EQ(accepts(ToolFormat::kHermes, hermes(note)), "<tool_call>\n{\"name\": \"");
  EXPECT_EQ(tool_grammar(request_, ToolFormat::kHermes).find("note"), std::string::npos);
}

TEST_F(ToolGrammarTest, CallsOrJsonOfASchema) {
  const OrderedJson schema = OrderedJson::parse(R"({"type": "object", "properties": {"name": {"enum": ["x"]}},
                                                    "required": ["name"], "additionalProperties": false})");
  const auto accept = [&](ToolFormat format, std::string_view answer) {
    return accepts(calls_or_json_grammar(request_, format, schema), answer);
  };
  const std::string call = R"({"name": "weather", "arguments": {"unit": "c"}})";
  EXPECT_EQ(accept(ToolFormat::kHermes, R"({"name": "x"})"), "all");
  EXPECT_EQ(accept(ToolFormat::kHermes, hermes(call)), "all");
  EXPECT_EQ(accept(ToolFormat::kHermes, hermes(call) + "\n" + hermes(call)), "all");
  EXPECT_EQ(accept(ToolFormat::kHermes, "Hello"), "");
  EXPECT_EQ(accept(ToolFormat::kPhi, "functools[" + call + ", " + call + "]"), "all");
  EXPECT_EQ(accept(ToolFormat::kPhi, R"({"name": "x"})"), "all");
}

TEST(AllowedTools, OnlyTheyAreLeftWhereTheOthersAreForgotten) {
  ToolRequest request;
  read_tools(request, OrderedJson::parse(R"([{"type": "function", "function": {"name": "a"}},
                                             {"type": "function", "function": {"name": "b"}},
                                             {"type": "function", "function": {"name": "c"}}])"));
  request.allowed = {"c", "a"};
  EXPECT_TRUE(request.strict()) << "the model must be kept from b";
  keep_allowed_tools(request);
  ASSERT_EQ(request.tools.size(), 2u);
  EXPECT_EQ(request.tools[1].name, "c");
  EXPECT_EQ(request.tools_json.find("\"b\""), std::string::npos);
  EXPECT_FALSE(request.strict());
}

TEST_F(ToolGrammarTest, LlamasCallIsTheWholeAnswer) {
  EXPECT_EQ(accepts(ToolFormat::kLlama3, R"({"name": "weather", "parameters": {"unit": "c"}})"), "all");
  EXPECT_EQ(accepts(ToolFormat::kLlama3, R"({"name": "weather", "parameters": {"unit": "k"}})"),
            R"({"name": "weather", "parameters": {"unit": ")");
}

TEST_F(ToolGrammarTest, MarkersThatAreNoTextCannotBeBound) {
  for (const auto format : {ToolFormat::kMistral, ToolFormat::kGemma, ToolFormat::kHarmony})
    EXPECT_FALSE(free_tool_grammar(request_, format));
}

}  // namespace
}  // namespace mlxs
