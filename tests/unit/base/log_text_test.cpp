// Text of strangers in lines of the log.
#include "base/log_text.h"

#include <gtest/gtest.h>

namespace mlxs {
namespace {

TEST(LogText, ALineOfTheLogStaysOne) {
  EXPECT_EQ(visible("Grüße, 你好 🎉"), "Grüße, 你好 🎉");
  EXPECT_EQ(visible("a\r\n2026 info forged\t\x1b[2J\x7f"), R"(a\x0d\n2026 info forged\t\x1b[2J\x7f)");
  EXPECT_EQ(visible("\xC2\x9B"
                    "31m \xE2\x80\xA8"),
            R"(\x9b31m \u2028)");
  EXPECT_EQ(visible(std::string_view("\0", 1)), R"(\x00)");
}

TEST(LogText, BytesThatAreNoUtf8AreShown) {
  EXPECT_EQ(visible("\xFF\xC0\xAF"), R"(\xff\xc0\xaf)");
  EXPECT_EQ(visible("\xE4\xBD"), R"(\xe4\xbd)");          // cut off
  EXPECT_EQ(visible("\xED\xA0\x80"), R"(\xed\xa0\x80)");  // a surrogate
  EXPECT_EQ(visible("\xF4\x90\x80\x80"), R"(\xf4\x90\x80\x80)");
}

TEST(LogText, TheInsideOfAJsonString) {
  EXPECT_EQ(json_text("a\"b\\c\n\x7f"), R"(a\"b\\c\u000a\u007f)");
  EXPECT_EQ(json_text("\xC2\x9B ü \xFF"), "\\u009b ü \xEF\xBF\xBD");
}

TEST(LogText, JsonKeepsItsMeaning) {
  EXPECT_EQ(quiet_json("{\"a\":\"\\n\x7f\xC2\x85 ü\"}"), "{\"a\":\"\\n\\u007f\\u0085 ü\"}");
}

}  // namespace
}  // namespace mlxs
