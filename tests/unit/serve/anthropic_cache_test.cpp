// Where cache_control stands, what lies before it, and how much of that was computed.
#include "serve/anthropic_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mlxs {
namespace {

constexpr int kFiveMinutes = 300'000, kHour = 3'600'000;

std::vector<CacheMark> marks(const char* body) { return read_cache_marks(OrderedJson::parse(body)); }

TEST(CacheMarks, StandInTheOrderOfThePromptAndCutItBehindThem) {
  const auto found = marks(R"({
    "messages": [
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}},
                                   {"type": "text", "text": "c"}]},
      {"role": "assistant", "content": "cache_control"}],
    "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}, {"type": "text", "text": "t"}],
    "tools": [{"name": "f", "cache_control": {"type": "ephemeral"}}, {"name": "g", "cache_control": null}],
    "cache_control": {"type": "ephemeral", "ttl": "5m"}})");
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[0].system.size(), 2u) << "a tool's: all of the system prompt";
  EXPECT_TRUE(found[0].messages.empty());
  EXPECT_EQ(found[1].system.size(), 1u);
  EXPECT_EQ(found[1].ttl_ms, kHour);
  ASSERT_EQ(found[2].messages.size(), 1u);
  EXPECT_EQ(found[2].messages[0]["content"].size(), 2u);
  EXPECT_EQ(found[2].ttl_ms, kFiveMinutes);
  EXPECT_EQ(found[3].messages.size(), 2u);
  EXPECT_EQ(found[3].messages[0]["content"].size(), 3u);
}

TEST(CacheMarks, InsideAToolsResultCountForAllOfIt) {
  const auto found = marks(R"({"messages": [{"role": "user", "content": [
    {"type": "tool_result", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                                        {"type": "text", "text": "b"}]}]}]})");
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].messages[0]["content"][0]["content"].size(), 2u);
}

// Copies of the conversation for every block would take hours here.
TEST(CacheMarks, OfVeryManyBlocksOnlyMarkedOnesAreCopied) {
  OrderedJson blocks = OrderedJson::array();
  for (int i = 0; i < 100'000; ++i)
    blocks.push_back({{"type", "tool_use"}, {"input", {{"cache_control", true}}}});
  blocks.back()["cache_control"] = {{"type", "ephemeral"}, {"ttl", nullptr}};
  const OrderedJson body{{"system", blocks}, {"messages", OrderedJson::array({{{"content", blocks}}})}};
  const auto found = read_cache_marks(body);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[1].messages[0]["content"].size(), blocks.size());
  EXPECT_EQ(found[1].ttl_ms, kFiveMinutes);
}

TEST(CacheMarks, FiveAreTooManyAndWrongOnesAreNamed) {
  const auto field_of = [](const char* body) {
    try {
      marks(body);
    } catch (const Error& error) {
      return error.field();
    }
    return std::string("none");
  };
  EXPECT_EQ(field_of(R"({"cache_control": {"type": "eternal"}})"), "cache_control.type");
  EXPECT_EQ(field_of(R"({"cache_control": 1})"), "cache_control");
  EXPECT_EQ(field_of(R"({"tools": [{"cache_control": {"type": "ephemeral", "ttl": "1d"}}]})"),
            "tools[0].cache_control.ttl");
  EXPECT_EQ(
      field_of(
          R"({"system": [{"cache_control": {"type": "ephemeral"}}, {"cache_control": {"type": "ephemeral"}},
                                    {"cache_control": {"type": "ephemeral"}}, {"cache_control": {"type": "ephemeral"}}],
                         "messages": [{"content": [{"cache_control": {"type": "ephemeral"}}]}]})"),
      "messages[0].content[0].cache_control");
}

TEST(CacheWrites, AreWhatWasNotThereByHowLongItStays) {
  const std::vector<CachedBeginning> both = {{64, kHour}, {160, kFiveMinutes}};
  const auto count = [&](int cached) {
    const CacheWrites writes = cache_writes(both, cached);
    return std::pair(writes.long_lived, writes.short_lived);
  };
  EXPECT_EQ(count(0), std::pair(64, 96));
  EXPECT_EQ(count(32), std::pair(32, 96));
  EXPECT_EQ(count(100), std::pair(0, 60));
  EXPECT_EQ(count(200), std::pair(0, 0));
  EXPECT_EQ(cache_writes({}, 0).total(), 0);
}

TEST(CommonBeginning, IsInWholePagesAndNeverAllOfThePrompt) {
  std::vector<std::int32_t> whole(64, 1), other(50, 1);
  EXPECT_EQ(common_beginning(whole, other), 48);
  EXPECT_EQ(common_beginning(whole, whole), 48) << "the last token is computed each time";
  other[20] = 2;
  EXPECT_EQ(common_beginning(whole, other), 16);
  EXPECT_EQ(common_beginning({}, other), 0);
}

}  // namespace
}  // namespace mlxs
