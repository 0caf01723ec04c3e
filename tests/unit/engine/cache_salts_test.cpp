#include "engine/cache_salts.h"

#include <gtest/gtest.h>

#include <fstream>

#include "mlxs/error.h"
#include "support/temp_dir.h"

namespace mlxs {
namespace {

TEST(CacheSalts, ScopesDiffer) {
  const CacheSalts salts;
  EXPECT_EQ(salts.of(""), 0u);
  EXPECT_NE(salts.of("a"), 0u);
  EXPECT_EQ(salts.of("a"), salts.of("a"));
  EXPECT_NE(salts.of("a"), salts.of("b"));
}

TEST(CacheSalts, NobodyOutsideCanTellThem) { EXPECT_NE(CacheSalts().of("a"), CacheSalts().of("a")); }

TEST(CacheSalts, OutliveTheProcessWithTheirFolder) {
  const test::TempDir a, b;
  const std::uint64_t salt = CacheSalts(a.path()).of("x");
  EXPECT_EQ(CacheSalts(a.path()).of("x"), salt);
  EXPECT_NE(CacheSalts(b.path()).of("x"), salt);
  std::ofstream(a.path() / "secret") << "half a secret";
  const std::uint64_t renewed = CacheSalts(a.path()).of("x");
  EXPECT_NE(renewed, salt);
  EXPECT_EQ(CacheSalts(a.path()).of("x"), renewed);
  EXPECT_THROW(CacheSalts(a.path() / "nowhere"), Error);
}

}  // namespace
}  // namespace mlxs
