#include "telemetry/sliding_rate.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace mlxs {
namespace {

TimePoint at_ms(std::int64_t ms) { return TimePoint{std::chrono::milliseconds(1'000'000 + ms)}; }

TEST(SlidingRate, EachWindowSeesItsOwnSeconds) {
  SlidingRate rate;
  for (int second = 0; second < 60; ++second) rate.add(at_ms(second * 1000), second < 50 ? 10 : 40);
  const TimePoint now = at_ms(60'000);
  EXPECT_DOUBLE_EQ(rate.per_second(now, 5), 40 * 4 / 4.0);  // the quarter of exactly five seconds ago is over
  EXPECT_NEAR(rate.per_second(now, 30), (40 * 10 + 10 * 19) / 29.0, 1e-9);
  EXPECT_NEAR(rate.per_second(now, 60), (40 * 10 + 10 * 49) / 59.0, 1e-9);
}

TEST(SlidingRate, CountsFromTheFirstOfTheWindowOn) {
  SlidingRate rate;
  rate.add(at_ms(0), 100);
  EXPECT_DOUBLE_EQ(rate.per_second(at_ms(2000), 60), 50);
}

TEST(SlidingRate, WhatWasDoesNotStayWhenNothingHappensAnyMore) {
  SlidingRate rate;
  rate.add(at_ms(0), 100);
  EXPECT_GT(rate.per_second(at_ms(4000), 5), 0);
  EXPECT_EQ(rate.per_second(at_ms(5000), 5), 0);
  EXPECT_GT(rate.per_second(at_ms(59'000), 60), 0);
  for (const std::int64_t later : {60'000, 64'000, 128'000, 10'000'000}) {  // rings later, too
    EXPECT_EQ(rate.per_second(at_ms(later), 60), 0) << later;
  }
}

TEST(SlidingRate, NothingAndTooShortATimeAreZero) {
  SlidingRate rate;
  EXPECT_EQ(rate.per_second(at_ms(0), 5), 0);
  rate.add(at_ms(0), 7);
  EXPECT_EQ(rate.per_second(at_ms(0), 5), 0);
}

TEST(SlidingRate, LosesNothingUnderThreads) {
  SlidingRate rate;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&rate] {
      for (int k = 0; k < 10'000; ++k) rate.add(at_ms(0));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_DOUBLE_EQ(rate.per_second(at_ms(1000), 5), 40'000);
}

}  // namespace
}  // namespace mlxs
