#include "serve/json_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "mlxs/error.h"

namespace mlxs {
namespace {

using testing::HasSubstr;

std::string refusal(std::string_view body) {
  try {
    parse_body(body);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidJson);
    return error.what();
  }
  ADD_FAILURE() << body << " was accepted";
  return "";
}

TEST(ParseBody, NamesTheByteAndTheLine) {
  EXPECT_THAT(refusal(""), HasSubstr("at byte 1, line 1"));
  EXPECT_THAT(refusal("{\"a\":1,}"), HasSubstr("at byte 8, line 1"));
  EXPECT_THAT(refusal("{\n\"a\":1,\n\"b\":tru}"), HasSubstr("line 3"));
  EXPECT_THAT(refusal("{\"a\":1"), HasSubstr("at byte 7"));
  EXPECT_THAT(refusal("{} x"), HasSubstr("at byte 4"));
  EXPECT_THAT(refusal("{\"a\":\"\xFF\"}"), HasSubstr("at byte 7"));
  EXPECT_THAT(refusal("{\"a\":1e999}"), HasSubstr("1e999"));
}

TEST(ParseBody, WantsAnObject) {
  for (const char* body : {"[]", "1", "\"x\"", "null"}) {
    try {
      parse_body(body);
      ADD_FAILURE() << body;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    }
  }
}

TEST(ParseBody, RefusesDeepNestingBeforeItCostsMemory) {
  EXPECT_THAT(refusal("{\"a\":" + std::string(5'000'000, '[')), HasSubstr("nesting at byte 69"));
  EXPECT_NO_THROW(
      parse_body("{\"a\":\"" + std::string(1000, '[') + "\\\"[[\"}"));  // brackets in text are text
  EXPECT_NO_THROW(parse_body("{\"a\":" + std::string(60, '[') + std::string(60, ']') + "}"));
}

TEST(JsonString, EscapesWhatMustBe) {
  EXPECT_EQ(json_string("a\"b\\c\n\r\t\x01\x7f/"), R"("a\"b\\c\n\r\t\u0001\u007f/")");
  EXPECT_EQ(json_string("é 漢 🦙"), "\"é 漢 🦙\"");
}

TEST(JsonString, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(json_string("a\xFFz"), "\"a\xEF\xBF\xBDz\"");
  EXPECT_EQ(json_string("\xC0\xAF"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");                  // overlong
  EXPECT_EQ(json_string("\xED\xA0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");  // surrogate
  EXPECT_EQ(json_string("\xF0\x9F\xA6"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");  // cut short
  EXPECT_EQ(valid_utf8("ok \xF0\x9F\xA6\x99\xFF"), "ok \xF0\x9F\xA6\x99\xEF\xBF\xBD");
}

TEST(JsonString, AnyBytesBecomeJsonThatReadsBackAsTheirUtf8) {
  std::mt19937 random(1);
  for (int i = 0; i < 5000; ++i) {
    std::string bytes(random() % 12, '\0');
    // Lead and continuation bytes often enough to form real and broken sequences.
    for (char& c : bytes) c = static_cast<char>(random() % 2 == 0 ? random() : 0x80 + random() % 0x80);
    const nlohmann::json read = nlohmann::json::parse(json_string(bytes));
    EXPECT_EQ(read.get<std::string>(), valid_utf8(bytes));
  }
}

TEST(Logprob, IsAlwaysANumber) {
  const auto text = [](float value) {
    std::string out;
    append_logprob(out, value);
    return out;
  };
  EXPECT_EQ(text(-0.5f), "-0.5");
  EXPECT_EQ(text(0), "0");
  EXPECT_EQ(nlohmann::json::parse(text(-std::numeric_limits<float>::infinity())), -9999);
  EXPECT_EQ(nlohmann::json::parse(text(-1e30f)), -9999);
  EXPECT_FLOAT_EQ(nlohmann::json::parse(text(-1.2345678e-7f)).get<float>(), -1.2345678e-7f);
}

}  // namespace
}  // namespace mlxs
