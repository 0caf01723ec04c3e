// Sizes, ages and tables as shown.
#include "cli/format.h"

#include <gtest/gtest.h>

namespace mlxs::cli {
namespace {

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
