#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "mlxs/error.h"

namespace mlxs {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kTemplate =
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";
constexpr std::string_view kMessages =
    R"({"messages": [{"role": "user", "content": "hi \"you\" é"}], "add_generation_prompt": true})";

Error error_of(std::string_view source, std::string_view context) {
  try {
    ChatTemplate(source, "", "").render(context);
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kInternal, "no error");
}

TEST(ChatTemplateTest, Renders) {
  const ChatTemplate chat(kTemplate, "<s>", "</s>");
  EXPECT_EQ(chat.render(kMessages), "<s><user>hi \"you\" é</s><assistant>");
}

TEST(ChatTemplateTest, ContentPartsAndTheOrderOfKeysArePreserved) {
  const ChatTemplate chat("{{ messages[0].content|tojson }}{{ z }}", "", "");
  EXPECT_EQ(
      chat.render(R"({"messages": [{"content": [{"z": 1, "a": "ü", "m": 1.50}]}], "z": {"b": 1, "a": 2}})"),
      R"([{"z": 1, "a": "ü", "m": 1.5}]{'b': 1, 'a': 2})");
}

TEST(ChatTemplateTest, ErrorsTellWhoseFaultItIs) {
  const Error syntax = error_of("a\nb{% for %}", "{}");
  EXPECT_EQ(syntax.code(), ErrorCode::kModelLoad);
  EXPECT_THAT(syntax.what(), HasSubstr("line 2"));

  const Error raised = error_of("{{ raise_exception('roles must alternate') }}", "{}");
  EXPECT_EQ(raised.code(), ErrorCode::kInvalidArgument);
  EXPECT_STREQ(raised.what(), "roles must alternate");

  EXPECT_EQ(error_of("{{ messages[0].x.y }}", "{\"messages\": [{}]}").code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(error_of("x", "not json").code(), ErrorCode::kInvalidArgument);
  EXPECT_THAT(error_of("{{ no_such_function() }}", "{}").what(), HasSubstr("no_such_function"));
}

TEST(ChatTemplateTest, DeepNestingIsAnErrorNotACrash) {
  std::string context = "{\"messages\": ";
  context.append(100'000, '[').append(100'000, ']').append("}");
  EXPECT_EQ(error_of("{{ messages }}", context).code(), ErrorCode::kInvalidArgument);
  std::string source;
  for (int i = 0; i < 5'000; ++i) source += "{% if true %}";
  EXPECT_EQ(error_of(source, "{}").code(), ErrorCode::kModelLoad);
  EXPECT_EQ(error_of("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{}").code(),
            ErrorCode::kInvalidArgument);
}

TEST(ChatTemplateTest, TheClockIsGiven) {
  const ChatTemplate chat("{{ strftime_now('%Y') }}", "", "");
  const std::chrono::system_clock::time_point mid_2019{std::chrono::seconds(1'560'000'000)};
  EXPECT_EQ(chat.render("{}", mid_2019), "2019");
}

TEST(ChatTemplateTest, RendersOnManyThreads) {
  const ChatTemplate chat(kTemplate, "", "");
  const std::string expected = chat.render(kMessages);
  std::vector<std::string> results(8);
  {
    std::vector<std::jthread> threads;
    for (std::string& result : results) {
      threads.emplace_back([&] {
        for (int i = 0; i < 50; ++i) result = chat.render(kMessages);
      });
    }
  }
  for (const std::string& result : results) EXPECT_EQ(result, expected);
}

}  // namespace
}  // namespace mlxs
