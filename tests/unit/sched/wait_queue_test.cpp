// The order of waiting requests: FIFO a tier, preempted ones ahead, paused ones passed over, ageing to the
// tier above.
#include "sched/wait_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <vector>

#include "sched/finish_rate.h"

namespace mlxs {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;

class WaitQueueTest : public testing::Test {
 protected:
  SchedEntry& push(RequestId id, int tier, int at_s = 0, std::uint64_t admission = 0) {
    SchedEntry& entry = entries_.emplace_back();
    entry.id = id;
    entry.tier = tier;
    entry.admission = admission;
    entry.preempted = admission > 0;
    queue_.push(entry, TimePoint{} + seconds(at_s));
    return entry;
  }
  // Takes everything out, in order of admission.
  std::vector<RequestId> drain() {
    std::vector<RequestId> ids;
    while (SchedEntry* entry = queue_.front()) {
      ids.push_back(entry->id);
      queue_.remove(*entry);
    }
    return ids;
  }

  std::deque<SchedEntry> entries_;
  WaitQueue queue_{seconds(5)};
};

TEST_F(WaitQueueTest, ServesBetterTiersFirstAndEachInOrder) {
  push(1, 2);
  push(2, 3);
  push(3, 0);
  push(4, 2);
  push(5, 0);
  EXPECT_EQ(queue_.size(), 5u);
  EXPECT_THAT(drain(), ElementsAre(3, 5, 1, 4, 2));
}

TEST_F(WaitQueueTest, PutsPreemptedRequestsAheadInOrderOfTheirAdmission) {
  push(1, 2);
  push(2, 2, 0, 7);
  push(3, 2, 0, 4);
  push(4, 2, 0, 9);
  push(5, 1);
  EXPECT_THAT(drain(), ElementsAre(5, 3, 2, 4, 1));
}

TEST_F(WaitQueueTest, PassesOverPausedRequests) {
  SchedEntry& first = push(1, 0);
  push(2, 0);
  push(3, 1);
  first.paused = true;
  EXPECT_EQ(queue_.front()->id, 2u);
  first.paused = false;
  EXPECT_EQ(queue_.front()->id, 1u);
  for (SchedEntry& entry : entries_) entry.paused = true;
  EXPECT_EQ(queue_.front(), nullptr);
}

TEST_F(WaitQueueTest, AgesByOneTierAnInterval) {
  SchedEntry& low = push(1, 3);
  SchedEntry& late = push(2, 3, 3);
  const auto tiers_at = [&](int at_s) {
    queue_.age(TimePoint{} + seconds(at_s));
    return std::pair(low.tier, late.tier);
  };
  EXPECT_EQ(tiers_at(4), std::pair(3, 3));
  EXPECT_EQ(tiers_at(5), std::pair(2, 3));
  EXPECT_EQ(tiers_at(7), std::pair(2, 3));
  EXPECT_EQ(tiers_at(8), std::pair(2, 2));
  EXPECT_EQ(tiers_at(10), std::pair(1, 2));
  EXPECT_EQ(tiers_at(18), std::pair(0, 0)) << "two intervals at once if nobody asked in between";
  EXPECT_EQ(tiers_at(1000), std::pair(0, 0));
}

TEST_F(WaitQueueTest, AgedRequestsJoinTheEndOfTheTierAndPreemptedOnesItsFront) {
  push(1, 1);
  push(2, 1, 0, 3);
  push(3, 0, 4);
  push(4, 0, 4, 5);
  queue_.age(TimePoint{} + seconds(5));
  push(5, 0, 5);
  EXPECT_THAT(drain(), ElementsAre(2, 4, 3, 1, 5));
}

TEST(FinishRate, AveragesStepTimePerFinishedRequest) {
  FinishRate rate;
  EXPECT_EQ(rate.seconds_to_next(), 1.0);
  rate.add(3, 0);
  EXPECT_EQ(rate.seconds_to_next(), 3.0) << "at least as long as nothing has ended";
  rate.add(1, 2);
  EXPECT_EQ(rate.seconds_to_next(), 2.0);
  rate.add(12, 1);
  EXPECT_DOUBLE_EQ(rate.seconds_to_next(), 3.0);
}

}  // namespace
}  // namespace mlxs
