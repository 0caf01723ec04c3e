// The registry against a real Redis, including one that goes away and comes back.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "fleet/heartbeat.h"
#include "fleet/registry.h"
#include "mlxs/error.h"
#include "redis_server.h"

namespace mlxs {
namespace {

using std::chrono::milliseconds;
using testing::free_port;
using testing::RedisServer;

Instance instance(const std::string& id) {
  return {.id = id, .endpoint = "http://127.0.0.1:8000", .models = {"smollm2"}, .version = "0.1.0", .pid = 1};
}

// Waits for something that another thread or process does; false after a generous while.
bool eventually(const std::function<bool()>& holds) {
  for (int tries = 0; tries < 1000; ++tries) {
    if (holds()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

class Registry : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!testing::redis_program()) GTEST_SKIP() << "no redis-server: scripts/bootstrap.sh test installs it";
    server_ = std::make_unique<RedisServer>(free_port());
  }
  RedisUrl url() const { return RedisUrl::parse(server_->url()); }
  std::size_t registered() const {
    RedisClient redis(url());
    return list_instances(redis).size();
  }
  // Fast beats, but a lifetime that no slow test machine outlasts.
  HeartbeatTiming fast() const {
    return {.interval = milliseconds(20),
            .lifetime = std::chrono::seconds(60),
            .first_retry = milliseconds(20),
            .longest_retry = milliseconds(100)};
  }
  std::unique_ptr<RedisServer> server_;
};

TEST_F(Registry, ListsWhatIsRegisteredById) {
  RedisClient redis(url());
  EXPECT_TRUE(list_instances(redis).empty());
  register_instance(redis, instance("b"), std::chrono::seconds(60));
  register_instance(redis, instance("a"), std::chrono::seconds(60));
  redis.command({"SET", "unrelated", "x"});
  const auto found = list_instances(redis);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0], instance("a"));
  EXPECT_EQ(found[1], instance("b"));
  deregister_instance(redis, "a");
  EXPECT_EQ(registered(), 1U);
}

TEST_F(Registry, FindsMoreInstancesThanOneScanReturns) {
  RedisClient redis(url());
  for (int i = 0; i < 500; ++i)
    register_instance(redis, instance(std::to_string(i)), std::chrono::seconds(60));
  EXPECT_EQ(list_instances(redis).size(), 500U);
}

TEST_F(Registry, SkipsAnEntryItCannotRead) {
  RedisClient redis(url());
  register_instance(redis, instance("a"), std::chrono::seconds(60));
  redis.command({"SET", "mlxs:instance:broken", "{]"});
  EXPECT_EQ(list_instances(redis).size(), 1U);
}

TEST_F(Registry, ForgetsAnInstanceThatStopsBeating) {
  RedisClient redis(url());
  register_instance(redis, instance("a"), milliseconds(1));
  EXPECT_TRUE(eventually([&] { return list_instances(redis).empty(); }));
}

TEST_F(Registry, NamesTheCommandThatRedisRefuses) {
  RedisClient redis(url());
  try {
    redis.command({"INCR", "a", "b"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_NE(error.full().find("INCR"), std::string::npos) << error.full();
  }
  redis.command({"PING"});  // the client is still of use
}

TEST_F(Registry, SelectsTheDatabaseOfTheUrl) {
  RedisClient other(RedisUrl::parse(server_->url() + "/2"));
  register_instance(other, instance("a"), std::chrono::seconds(60));
  EXPECT_EQ(registered(), 0U);
  EXPECT_EQ(list_instances(other).size(), 1U);
}

TEST_F(Registry, HeartbeatRegistersAndStopRemoves) {
  Heartbeat heartbeat(url(), instance("a"), fast());
  EXPECT_TRUE(eventually([&] { return registered() == 1; }));
  heartbeat.stop();
  EXPECT_EQ(registered(), 0U);
  heartbeat.stop();
}

TEST_F(Registry, HeartbeatOutlivesARedisThatGoesAway) {
  Heartbeat heartbeat(url(), instance("a"), fast());
  EXPECT_TRUE(eventually([&] { return registered() == 1; }));
  server_->stop();
  std::this_thread::sleep_for(milliseconds(100));  // some beats fail; nothing is asserted about how many
  server_->start();                                // empty again
  EXPECT_TRUE(eventually([&] { return registered() == 1; }));
}

TEST_F(Registry, HeartbeatStopsWhileRedisIsAway) {
  server_->stop();
  Heartbeat heartbeat(url(), instance("a"), fast());
  heartbeat.stop();
}

TEST(RedisClient, NamesAServerThatIsNotThere) {
  const int port = free_port();
  RedisClient redis(RedisUrl::parse("redis://127.0.0.1:" + std::to_string(port)));
  try {
    redis.command({"PING"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnavailable);
    EXPECT_NE(error.full().find("127.0.0.1:" + std::to_string(port)), std::string::npos) << error.full();
  }
}

}  // namespace
}  // namespace mlxs
