#include "engine/inbox.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace mlxs {
namespace {

TEST(Inbox, RunsTasksInTheOrderOfPosting) {
  Inbox inbox;
  std::vector<int> seen;
  for (int i = 0; i < 100; ++i) inbox.post([&seen, i] { seen.push_back(i); });
  EXPECT_TRUE(inbox.drain());
  ASSERT_EQ(seen.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
  EXPECT_FALSE(inbox.drain());
}

TEST(Inbox, LosesNothingBetweenThreadsAndKeepsEachThreadsOrder) {
  constexpr int kThreads = 4, kEach = 5000;
  Inbox inbox;
  std::vector<int> last(kThreads, -1);
  int received = 0;
  bool ordered = true;
  std::vector<std::thread> producers;
  for (int t = 0; t < kThreads; ++t) {
    producers.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        inbox.post([&, t, i] {
          ordered &= last[static_cast<std::size_t>(t)] == i - 1;
          last[static_cast<std::size_t>(t)] = i;
          ++received;
        });
      }
    });
  }
  while (received < kThreads * kEach) {
    if (!inbox.drain()) inbox.wait();
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_TRUE(ordered);
}

TEST(Inbox, DropsTasksAfterClose) {
  Inbox inbox;
  inbox.close();
  EXPECT_FALSE(inbox.post([] { FAIL(); }));
  EXPECT_FALSE(inbox.drain());
}

TEST(Inbox, ATaskMayPostAnother) {
  Inbox inbox;
  int runs = 0;
  inbox.post([&] {
    ++runs;
    inbox.post([&] { ++runs; });
  });
  inbox.drain();
  inbox.wait();  // returns at once: something was posted since
  inbox.drain();
  EXPECT_EQ(runs, 2);
}

}  // namespace
}  // namespace mlxs
