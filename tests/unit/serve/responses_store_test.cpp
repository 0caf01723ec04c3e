// What is kept of responses, for whom and how long.
#include "serve/responses_store.h"

#include <gtest/gtest.h>

#include <string>

namespace mlxs {
namespace {

StoredResponse response(std::string id, std::string tenant = "alice", std::size_t size = 100) {
  return {.id = std::move(id),
          .tenant = std::move(tenant),
          .json = std::string(size, 'x'),
          .input_items = "[]",
          .messages = OrderedJson::array()};
}

TEST(ResponsesStore, OnesOwnAreFoundAndRemoved) {
  ManualClock clock;
  ResponsesStore store(clock);
  store.put(response("a"));
  ASSERT_NE(store.find("a", "alice"), nullptr);
  EXPECT_EQ(store.find("a", "alice")->id, "a");
  EXPECT_EQ(store.find("a", "bob"), nullptr);
  EXPECT_FALSE(store.remove("a", "bob"));
  EXPECT_EQ(store.find("b", "alice"), nullptr);
  EXPECT_TRUE(store.remove("a", "alice"));
  EXPECT_EQ(store.find("a", "alice"), nullptr);
  EXPECT_FALSE(store.remove("a", "alice"));
}

TEST(ResponsesStore, TheOldestGoFirst) {
  ManualClock clock;
  ResponsesStore store(clock, {.count = 2, .bytes = 1 << 20});
  for (const char* id : {"a", "b", "c"}) store.put(response(id));
  EXPECT_EQ(store.find("a", "alice"), nullptr);
  EXPECT_NE(store.find("b", "alice"), nullptr);
  EXPECT_NE(store.find("c", "alice"), nullptr);
  EXPECT_EQ(store.size(), 2u);
}

TEST(ResponsesStore, BytesAreBounded) {
  ManualClock clock;
  ResponsesStore store(clock, {.count = 100, .bytes = 1000});
  store.put(response("a", "alice", 600));
  store.put(response("b", "alice", 300));
  EXPECT_EQ(store.size(), 2u);
  store.put(response("c", "alice", 300));
  EXPECT_EQ(store.find("a", "alice"), nullptr);
  EXPECT_EQ(store.size(), 2u);
  store.put(response("d", "alice", 2000));  // more than there is room for at all
  EXPECT_EQ(store.size(), 0u);
}

TEST(ResponsesStore, TheyGoWithTime) {
  ManualClock clock;
  ResponsesStore store(clock, {.age = std::chrono::hours(1)});
  store.put(response("a"));
  clock.advance(std::chrono::minutes(59));
  EXPECT_NE(store.find("a", "alice"), nullptr);
  clock.advance(std::chrono::minutes(2));
  EXPECT_EQ(store.find("a", "alice"), nullptr);
  EXPECT_EQ(store.size(), 0u);
}

}  // namespace
}  // namespace mlxs
