// `bench --synthetic` is a spelling of `bench synthetic`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/commands.h"

namespace mlxs::cli {
namespace {

using testing::ElementsAre;

TEST(BenchFlag, SyntheticIsACommandInOtherWords) {
  EXPECT_THAT(spell_out_synthetic({"bench", "--synthetic", "c.json", "--json"}),
              ElementsAre("bench", "synthetic", "c.json", "--json"));
  EXPECT_THAT(spell_out_synthetic({"bench", "--backend", "cuda", "--synthetic=c.json"}),
              ElementsAre("bench", "synthetic", "--backend", "cuda", "c.json"));
  EXPECT_THAT(spell_out_synthetic({"bench", "synthetic", "c.json"}),
              ElementsAre("bench", "synthetic", "c.json"));
  EXPECT_THAT(spell_out_synthetic({"run", "m", "--synthetic"}), ElementsAre("run", "m", "--synthetic"));
  EXPECT_THAT(spell_out_synthetic({}), ElementsAre());
}

}  // namespace
}  // namespace mlxs::cli
