// Byte sizes as typed and shown, ages, tables.
#include "cli/format.h"

#include <gtest/gtest.h>

#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

TEST(ParseBytes, ReadsEveryUnit) {
  EXPECT_EQ(parse_bytes("4096"), 4096U);
  EXPECT_EQ(parse_bytes("0"), 0U);
  EXPECT_EQ(parse_bytes("2GiB"), std::uint64_t{2} << 30);
  EXPECT_EQ(parse_bytes("2 gib"), std::uint64_t{2} << 30);
  EXPECT_EQ(parse_bytes("2g"), std::uint64_t{2} << 30);
  EXPECT_EQ(parse_bytes("1.5K"), 1536U);
  EXPECT_EQ(parse_bytes("512MB"), 512'000'000U);
  EXPECT_EQ(parse_bytes("1TB"), 1'000'000'000'000U);
  EXPECT_EQ(parse_bytes("7B"), 7U);
}

TEST(ParseBytes, RefusesEverythingElse) {
  for (const char* text : {"", "GiB", "-1", "2X", "2GiBs", "2GG", "nan", "inf", "1e30", "2 G 1"}) {
    EXPECT_THROW(parse_bytes(text), Error) << text;
  }
}

TEST(FormatBytes, PicksTheUnit) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(98'000'000), "98.0 MB");
  EXPECT_EQ(format_bytes(1'500'000'000), "1.5 GB");
}

TEST(FormatCount, PicksTheUnit) {
  EXPECT_EQ(format_count(7), "7");
  EXPECT_EQ(format_count(134'515'008), "134.5M");
}

TEST(FormatAge, RoundsDown) {
  EXPECT_EQ(format_age(1000, 1059), "just now");
  EXPECT_EQ(format_age(1000, 1060), "1 minute ago");
  EXPECT_EQ(format_age(0, 2 * 86400 + 3600), "2 days ago");
  EXPECT_EQ(format_age(2000, 1000), "just now");  // a clock that was set back
}

TEST(FormatTable, AlignsColumnsAndLeavesNoTrailingSpace) {
  EXPECT_EQ(format_table({{"NAME", "SIZE"}, {"smollm2", "98 MB"}}), "NAME     SIZE\nsmollm2  98 MB\n");
  EXPECT_EQ(format_table({}), "");
}

}  // namespace
}  // namespace mlxs::cli
