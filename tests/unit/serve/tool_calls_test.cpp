// Tool calls found in text, whole and in pieces of every size, and the requests that ask for them.
#include "serve/tool_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/tool_request.h"

namespace mlxs {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What came of an answer, pieces joined: "text", "name(arguments)".
std::vector<std::string> parse(ToolFormat format, std::string_view answer, std::size_t piece,
                               bool begun = false) {
  ToolCallParser parser(format, begun);
  std::vector<ToolEvent> events;
  const auto add = [&](std::vector<ToolEvent> more) {
    events.insert(events.end(), more.begin(), more.end());
  };
  for (std::size_t i = 0; i < answer.size(); i += piece) add(parser.feed(answer.substr(i, piece)));
  add(parser.finish());
  std::vector<std::string> result;
  auto last = ToolEvent::Type::kArguments;
  for (const ToolEvent& event : events) {
    switch (event.type) {
      case ToolEvent::Type::kText:
        if (last == ToolEvent::Type::kText && !result.empty()) {
          result.back() += event.text;
        } else {
          result.push_back(event.text);
        }
        break;
      case ToolEvent::Type::kReasoning:
        ADD_FAILURE() << "calls are not thinking: " << event.text;
        break;
      case ToolEvent::Type::kCall:
        result.push_back(event.text + ": ");
        break;
      case ToolEvent::Type::kArguments:
        result.back() += event.text;
        break;
    }
    last = event.type;
  }
  return result;
}

struct Case {
  ToolFormat format;
  std::string answer;
  std::vector<std::string> expected;
  bool begun = false;
};

class ToolCallTest : public ::testing::TestWithParam<Case> {};

TEST_P(ToolCallTest, IsReadTheSameInPiecesOfEverySize) {
  const Case& c = GetParam();
  for (std::size_t piece = 1; piece <= c.answer.size(); ++piece) {
    EXPECT_EQ(parse(c.format, c.answer, piece, c.begun), c.expected) << "in pieces of " << piece;
  }
}

constexpr auto kHermes = ToolFormat::kHermes;
constexpr auto kLlama = ToolFormat::kLlama3;
constexpr auto kMistral = ToolFormat::kMistral;
constexpr auto kPhi = ToolFormat::kPhi;

INSTANTIATE_TEST_SUITE_P(
    Formats, ToolCallTest,
    ::testing::Values(
        Case{kHermes, "plain text, 3 < 4, <tool", {"plain text, 3 < 4, <tool"}},
        Case{kHermes,
             "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\"}}\n</tool_call>",
             {R"(f: {"a": "}\"{"})"}},
        Case{kHermes,
             "Let me see.\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>\n"
             "{\"arguments\": {\"x\": [1, {\"y\": 2}]}, \"name\": \"g\"}\n</tool_call>\n",
             {"Let me see.", "f: {}", R"(g: {"x": [1, {"y": 2}]})"}},
        Case{kHermes, R"(<tool_call>{"name":"f","arguments":"{\"a\":1}"}</tool_call>)", {R"(f: {"a":1})"}},
        Case{kHermes, R"(<tool_call>{"id":7,"name":"f"}</tool_call>)", {"f: {}"}},
        Case{kHermes, R"(<tool_call>{"name":"f","arguments":{"a":1)", {R"(f: {"a":1)"}},  // cut short
        Case{kHermes, R"(<tool_call>no call</tool_call>)", {"<tool_call>no call</tool_call>"}},
        Case{kLlama, R"( {"name": "f", "parameters": {"a": 1}})", {R"(f: {"a": 1})"}},
        Case{kLlama,
             R"(<|python_tag|>{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}})",
             {"f: {}", "g: {}"}},
        Case{kLlama, R"({"city": "Paris"})", {R"({"city": "Paris"})"}},
        Case{kLlama, "It is {not} one.", {"It is {not} one."}},
        Case{kMistral,
             R"([TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}])",
             {R"(f: {"a": 1})", "g: {}"}},
        Case{kMistral, "[1, 2] is a list", {"[1, 2] is a list"}},
        Case{kMistral, R"([{"name": "f", "arguments": {}}])", {"f: {}"}, true},
        Case{kPhi,
             R"(I see. functools[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}])",
             {"I see.", R"(f: {"a": 1})", "g: {}"}},
        Case{kPhi, R"(<|tool_call|>[{"name": "f", "arguments": {}}]<|/tool_call|>Done.)", {"f: {}", "Done."}},
        Case{kPhi, "import functools and functools[ 0 ]", {"import functools and functools[0 ]"}}));

ToolRequest request(const std::string& tools, const std::string& choice) {
  ToolRequest result;
  read_tools(result, OrderedJson::parse(tools));
  read_tool_choice(result, Json::parse(choice));
  check_tools(result);
  return result;
}

constexpr const char* kTools = R"([{"type":"function","function":{"name":"f","parameters":
  {"type":"object","properties":{"z":{"type":"null"},"a":{"type":"null"}}}}},
  {"type":"function","function":{"name":"g"}}])";

TEST(ToolRequest, KeepsTheOrderOfTheClient) {
  const ToolRequest read = request(kTools, R"("auto")");
  EXPECT_THAT(read.tools_json, HasSubstr(R"({"z":{"type":"null"},"a":{"type":"null"}})"));
  EXPECT_TRUE(read.active());
  EXPECT_FALSE(read.forced());
  EXPECT_FALSE(request(kTools, R"("none")").active());
}

TEST(ToolRequest, ANamedFunctionIsTheOnlyOneInTheGrammar) {
  const ToolRequest named = request(kTools, R"({"type":"function","function":{"name":"g"}})");
  EXPECT_TRUE(named.forced());
  const std::string grammar = tool_grammar(named, kHermes);
  EXPECT_THAT(grammar, HasSubstr(R"({\"name\": \"g\")"));
  EXPECT_THAT(grammar, ::testing::Not(HasSubstr(R"({\"name\": \"f\")")));
}

TEST(ToolRequest, ATemplateWithoutToolsGetsThemAsText) {
  const std::string text = plain_tool_messages(
      R"([{"role":"system","content":"Be brief."},{"role":"user","content":"hi"},
          {"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"f","arguments":{"a":1}}}]},
          {"role":"tool","content":"one"},{"role":"tool","content":"two"}])",
      request(kTools, R"("auto")").tools_json);
  const Json messages = Json::parse(text);
  std::vector<std::string> roles;
  for (const Json& message : messages) roles.push_back(message["role"]);
  EXPECT_THAT(roles, ElementsAre("system", "user", "assistant", "user"));
  EXPECT_THAT(messages[0]["content"], HasSubstr("Be brief.\n\n"));
  EXPECT_THAT(messages[0]["content"], HasSubstr(R"("name": "g")"));
  EXPECT_EQ(messages[2]["content"],
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>");
  EXPECT_EQ(messages[3]["content"],
            "<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response>");
}

}  // namespace
}  // namespace mlxs
