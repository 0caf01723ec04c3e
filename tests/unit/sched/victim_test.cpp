// Who gives up its pages: by what is lost, not by what is held, and not the same one again at once.
#include "sched/victim.h"

#include <gtest/gtest.h>

#include <deque>

#include "unit/sched/driver.h"

namespace mlxs {
namespace {

class VictimTest : public testing::Test {
 protected:
  ~VictimTest() override {
    for (SchedEntry* entry : running_) pool_.close(std::move(entry->sequence));
  }
  // A decoding request whose tokens are all computed.
  SchedEntry& run(RequestId id, std::int32_t tokens, TokenId key, int tier = 2) {
    SchedEntry& entry = entries_.emplace_back();
    entry.id = entry.admission = id;
    entry.tokens = prompt_of(static_cast<std::size_t>(tokens), key);
    entry.tier = tier;
    entry.running = entry.decoding = true;
    entry.sequence = pool_.open(entry.tokens);
    EXPECT_TRUE(pool_.reserve(entry.sequence, tokens));
    pool_.commit(entry.sequence, entry.tokens, tokens);
    running_.push_back(&entry);
    return entry;
  }
  RequestId victim() { return choose_victim(running_, pool_)->id; }

  KvPool pool_{{.num_pages = 64}};
  std::deque<SchedEntry> entries_;
  std::vector<SchedEntry*> running_;
};

TEST_F(VictimTest, LosesTheFewestTokensNotPages) {
  run(1, 32, 1);
  run(2, 17, 2);  // two pages as well, 15 tokens less
  run(3, 30, 3);
  EXPECT_EQ(victim(), 2u);
}

TEST_F(VictimTest, WhatOthersKeepIsNotLost) {
  run(1, 40, 1);
  run(2, 104, 2);
  run(3, 100, 2);  // 96 of these stay with the second
  EXPECT_EQ(victim(), 3u);
}

TEST_F(VictimTest, WhoGivesNothingBackIsOfNoUse) {
  run(1, 32, 1);
  run(2, 32, 1);  // both pages shared
  run(3, 48, 3, 0);
  EXPECT_EQ(victim(), 3u) << "although it is of the best tier and loses most";
}

TEST_F(VictimTest, SparesWhoCameBackUntilItHasGainedAPage) {
  SchedEntry& back = run(1, 20, 1);
  run(2, 60, 2);
  back.preempted = true;
  back.spared_until = 20 + 1;
  EXPECT_EQ(victim(), 2u);
  back.tokens.push_back(5);
  EXPECT_EQ(victim(), 1u);
}

}  // namespace
}  // namespace mlxs
