#include "engine/cache_salts.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace mlxs
