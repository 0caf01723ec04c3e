// Amounts of bytes, typed and written back.
#include "base/bytes.h"

#include <gtest/gtest.h>

#include "mlxs/error.h"

namespace mlxs {
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

TEST(ExactBytes, AreReadBackAsTheSameNumber) {
  EXPECT_EQ(exact_bytes(0), "0");
  EXPECT_EQ(exact_bytes(10 << 20), "10MiB");
  EXPECT_EQ(exact_bytes(4097), "4097");
  for (const std::uint64_t bytes : {1ull, 1024ull, 1536ull, 1ull << 30, 1ull << 50, 3ull << 40}) {
    EXPECT_EQ(parse_bytes(exact_bytes(bytes)), bytes) << exact_bytes(bytes);
  }
}

}  // namespace
}  // namespace mlxs
