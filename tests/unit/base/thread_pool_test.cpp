#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "mlxs/error.h"

namespace mlxs {
namespace {

TEST(ThreadPool, RunsOnEveryParticipantOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int round = 0; round < 200; ++round) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(threads));
      pool.run([&](int worker) { calls[static_cast<std::size_t>(worker)].fetch_add(1); });
      for (const auto& count : calls) ASSERT_EQ(count.load(), 1) << threads << " threads, round " << round;
    }
  }
}

TEST(ThreadPool, CallerIsWorkerZero) {
  ThreadPool pool(3);
  std::thread::id zero;
  pool.run([&](int worker) {
    if (worker == 0) zero = std::this_thread::get_id();
  });
  EXPECT_EQ(zero, std::this_thread::get_id());
}

TEST(ThreadPool, ParallelForCoversEveryIndexOnce) {
  ThreadPool pool(4);
  for (const std::int64_t count : {0, 1, 5, 64, 1000}) {
    for (const std::int64_t grain : {1, 3, 64, 5000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
      pool.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end, int worker) {
        ASSERT_LT(begin, end);
        ASSERT_TRUE(worker >= 0 && worker < 4);
        for (std::int64_t i = begin; i < end; ++i) seen[static_cast<std::size_t>(i)].fetch_add(1);
      });
      for (const auto& times : seen) ASSERT_EQ(times.load(), 1) << count << " in grains of " << grain;
    }
  }
}

TEST(ThreadPool, SharesCoverEveryIndexOnceAndBeginWithTheOwn) {
  for (const int threads : {1, 2, 3, 4}) {
    ThreadPool pool(threads);
    for (const std::int64_t count : {0, 1, 2, 5, 64, 1000}) {
      for (const std::int64_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> taken_by(static_cast<std::size_t>(count));  // worker + 1
        std::vector<std::int64_t> first(static_cast<std::size_t>(threads), -1);
        pool.parallel_shares(count, grain, [&](std::int64_t begin, std::int64_t end, int worker) {
          ASSERT_LT(begin, end);
          ASSERT_LE(end, count);
          auto& mine = first[static_cast<std::size_t>(worker)];
          if (mine < 0) mine = begin;
          for (std::int64_t i = begin; i < end; ++i) {
            ASSERT_EQ(taken_by[static_cast<std::size_t>(i)].exchange(worker + 1), 0) << i << " of " << count;
          }
        });
        for (const auto& worker : taken_by) ASSERT_NE(worker.load(), 0);
        if (count <= grain || threads == 1) continue;  // all on the caller
        // Who began elsewhere found nothing of its own left.
        const std::int64_t items = (count + grain - 1) / grain;
        for (int worker = 0; worker < threads; ++worker) {
          const std::int64_t begin = items * worker / threads * grain;
          const std::int64_t end = std::min(count, items * (worker + 1) / threads * grain);
          const std::int64_t at = first[static_cast<std::size_t>(worker)];
          if (at < 0 || (begin <= at && at < end)) continue;
          for (std::int64_t i = begin; i < end; ++i) {
            ASSERT_NE(taken_by[static_cast<std::size_t>(i)].load(), worker + 1);
          }
        }
      }
    }
  }
}

// Writes of one region are visible in the next without further synchronization (run under the thread
// sanitizer too).
TEST(ThreadPool, AShareIsWhereAParticipantBegins) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (const std::int64_t count : {1, 7, 60, 97}) {
      for (const std::int64_t grain : {1, 4, 16}) {
        std::int64_t covered = 0;
        for (std::int64_t index = 0; index < count; ++index) {
          const ThreadPool::Share share = pool.share_of(count, grain, index);
          EXPECT_LE(share.begin, index);
          EXPECT_GT(share.end, index);
          EXPECT_LT(share.owner, share.owners);
          if (index == share.begin) covered += share.end - share.begin;
        }
        EXPECT_EQ(covered, count) << threads << " threads, grain " << grain;
      }
    }
  }
}

TEST(ThreadPool, RegionsAreOrdered) {
  ThreadPool pool(4);
  std::vector<int> values(1024, 0);
  for (int round = 1; round <= 500; ++round) {
    pool.parallel_for(1024, 16, [&](std::int64_t begin, std::int64_t end, int) {
      for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        ASSERT_EQ(values[(i + 512) % 1024] >= round - 1, true);
        if (i < 512) continue;
        ++values[i];
      }
    });
    for (std::size_t i = 0; i < 512; ++i) values[i] = values[i + 512];
  }
}

TEST(ThreadPool, RefusesThreadCountsOutsideItsRange) {
  for (const int threads : {0, -1, 257}) {
    try {
      ThreadPool pool(threads);
      FAIL() << threads;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find(std::to_string(threads)), std::string::npos);
    }
  }
}

#if defined(__linux__)
std::set<std::string> thread_ids() {
  std::set<std::string> ids;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task"))
    ids.insert(entry.path().filename());
  return ids;
}

// An idle server uses no processor time: workers end up asleep in the kernel, and wake up for the next
// region.
TEST(ThreadPool, ParksWhenIdle) {
  const std::set<std::string> before = thread_ids();
  ThreadPool pool(2);
  std::atomic<int> calls{0};
  pool.run([&](int) { calls.fetch_add(1); });
  std::string worker;
  for (const std::string& id : thread_ids()) {
    if (!before.contains(id)) worker = id;
  }
  ASSERT_FALSE(worker.empty());
  const auto state = [&] {
    std::ifstream file("/proc/self/task/" + worker + "/stat");
    std::string text;
    std::getline(file, text);
    return text[text.rfind(')') + 2];
  };
  while (state() != 'S')
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the test's timeout is the failure
  pool.run([&](int) { calls.fetch_add(1); });
  EXPECT_EQ(calls.load(), 4);
}
#endif

}  // namespace
}  // namespace mlxs
