#include "telemetry/bounded_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mlxs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(BoundedQueue, TheOldestGoAndAreCounted) {
  BoundedQueue<int> queue(3);
  for (int i = 0; i < 8; ++i) queue.push(i);
  EXPECT_EQ(queue.dropped(), 5u);
  EXPECT_THAT(queue.take(2, 1, TimePoint{}), ElementsAre(5, 6));
  queue.push(8);
  EXPECT_THAT(queue.take(9, 1, TimePoint{}), ElementsAre(7, 8));
  EXPECT_EQ(queue.dropped(), 5u);
}

TEST(BoundedQueue, ClosingGivesOutWhatIsThereAtOnce) {
  BoundedQueue<int> queue(3);
  queue.push(1);
  queue.close();
  const TimePoint never = TimePoint::max();
  EXPECT_THAT(queue.take(9, 2, never), ElementsAre(1));
  EXPECT_THAT(queue.take(9, 2, never), IsEmpty());
  EXPECT_TRUE(queue.closed());
}

}  // namespace
}  // namespace mlxs
