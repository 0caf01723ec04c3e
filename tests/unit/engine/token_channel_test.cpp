#include "engine/token_channel.h"

#include <gtest/gtest.h>

#include <thread>

namespace mlxs {
namespace {

Chunk token(int id) { return {.type = Chunk::Type::kToken, .token_id = id}; }
Chunk done() { return {.type = Chunk::Type::kDone}; }

TEST(TokenChannel, DeliversInOrderThenEnds) {
  TokenChannel channel([] {});
  for (int i = 0; i < 3; ++i) channel.push(token(i));
  channel.push(done());
  channel.push(token(9));  // after the end: ignored
  for (int i = 0; i < 3; ++i) EXPECT_EQ(channel.pop_blocking()->token_id, i);
  EXPECT_EQ(channel.pop_blocking()->type, Chunk::Type::kDone);
  EXPECT_FALSE(channel.pop_blocking());
  Chunk chunk;
  EXPECT_EQ(channel.try_pop(chunk), Generator::Poll::kEnd);
}

TEST(TokenChannel, PausesOnceAtTheHighWaterMarkAndResumesOnceAtHalf) {
  int drained = 0, paused = 0;
  TokenChannel channel([&] { ++drained; });
  for (std::size_t i = 0; i < TokenChannel::kHighWater + 1; ++i) paused += channel.push(token(0));
  EXPECT_EQ(paused, 1);
  Chunk chunk;
  while (channel.try_pop(chunk) == Generator::Poll::kChunk) {
  }
  EXPECT_EQ(drained, 1);
  for (std::size_t i = 0; i < TokenChannel::kHighWater; ++i) paused += channel.push(token(0));
  EXPECT_EQ(paused, 2);
}

TEST(TokenChannel, NotifiesOncePerRequest) {
  TokenChannel channel([] {});
  int calls = 0;
  channel.notify_when_ready([&] { ++calls; });
  EXPECT_EQ(calls, 0);
  channel.push(token(1));
  channel.push(token(2));
  EXPECT_EQ(calls, 1);
  channel.notify_when_ready([&] { ++calls; });  // something is there: at once
  EXPECT_EQ(calls, 2);
}

TEST(TokenChannel, KeepsTheOrderWhileItsRingGrows) {
  TokenChannel channel([] {});
  Chunk chunk;
  int pushed = 0, popped = 0;
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < round % 37; ++i) channel.push(token(pushed++));
    for (int i = 0; i < round % 31 && channel.try_pop(chunk) == Generator::Poll::kChunk; ++i) {
      ASSERT_EQ(chunk.token_id, popped++);
    }
  }
  while (channel.try_pop(chunk) == Generator::Poll::kChunk) ASSERT_EQ(chunk.token_id, popped++);
  EXPECT_EQ(popped, pushed);
}

TEST(TokenChannel, ABlockedConsumerIsWokenByTheEnd) {
  TokenChannel channel([] {});
  std::thread consumer([&] {
    EXPECT_EQ(channel.pop_blocking()->type, Chunk::Type::kDone);
    EXPECT_FALSE(channel.pop_blocking());
  });
  channel.push(done());
  consumer.join();
}

}  // namespace
}  // namespace mlxs
