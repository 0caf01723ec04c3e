// The progress line: what it says at each moment, and that it never outgrows the terminal.
#include "cli/progress_bar.h"

#include <gtest/gtest.h>

#include <string>

namespace mlxs::cli {
namespace {

constexpr std::uint64_t kTotal = 98'000'000;

int columns(const std::string& text) {
  int count = 0;
  for (const char byte : text)
    count += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;  // not a UTF-8 continuation
  return count;
}

TEST(RenderProgress, SaysHowMuchHowFastAndHowLong) {
  EXPECT_EQ(
      render_progress("smollm2", {"downloading", 49'000'000, kTotal}, 4.9, 100),
      "smollm2 downloading  ███████████████░░░░░░░░░░░░░░░  50 %  49.0 MB of 98.0 MB  10.0 MB/s  5 s left");
}

TEST(RenderProgress, ShowsNoRateBeforeThereIsOne) {
  EXPECT_EQ(render_progress("smollm2", {"verifying", 0, kTotal}, 0, 66),
            "smollm2 verifying  ░░░░░░░░░░░░░░░░░░░░░░░   0 %  0 B of 98.0 MB");
}

TEST(RenderProgress, CountsWhenTheTotalIsUnknown) {
  EXPECT_EQ(render_progress("m", {"downloading", 1'500'000, 0}, 1, 80), "m downloading  1.5 MB  1.5 MB/s");
}

TEST(RenderProgress, FitsEveryTerminal) {
  for (int width = 30; width < 200; ++width) {
    for (const std::uint64_t done : {std::uint64_t{0}, kTotal / 3, kTotal, kTotal + 1}) {
      EXPECT_LE(columns(render_progress("smollm2", {"downloading", done, kTotal}, 3.0, width)), width)
          << width;
    }
  }
}

}  // namespace
}  // namespace mlxs::cli
