// One writer that never waits, readers that never see half a value.
#include "base/latest.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace mlxs {
namespace {

TEST(Latest, WhatWasPublishedLastIsRead) {
  Latest<std::string> latest;
  EXPECT_EQ(latest.read(), "");
  latest.publish("a");
  latest.publish("b");
  EXPECT_EQ(latest.read(), "b");
  EXPECT_EQ(latest.read(), "b");
  latest.publish("c");
  EXPECT_EQ(latest.read(), "c");
}

TEST(Latest, ReadersSeeWholeValuesThatOnlyGetNewer) {
  Latest<std::vector<int>> latest;
  constexpr int kLast = 20'000;
  std::vector<std::thread> readers;
  for (int r = 0; r < 3; ++r) {
    readers.emplace_back([&latest] {
      int seen = 0;
      while (seen < kLast) {
        const std::vector<int> value = latest.read();
        for (const int number : value) ASSERT_EQ(number, value.front());
        const int now = value.empty() ? 0 : value.front();
        ASSERT_GE(now, seen);
        seen = now;
      }
    });
  }
  for (int i = 1; i <= kLast; ++i) latest.publish(std::vector<int>(8, i));
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace mlxs
