// Registry URLs, instance records and retry pauses: everything of fleet/ that needs no server.
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "fleet/heartbeat.h"
#include "fleet/redis_client.h"
#include "fleet/registry.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

using std::chrono::milliseconds;

TEST(RedisUrl, ReadsEveryPart) {
  const auto url = RedisUrl::parse("redis://ann:p%40ss%3A@cache.example:6380/3");
  EXPECT_EQ(url.host, "cache.example");
  EXPECT_EQ(url.port, 6380);
  EXPECT_EQ(url.user, "ann");
  EXPECT_EQ(url.password, "p@ss:");
  EXPECT_EQ(url.database, 3);
}

TEST(RedisUrl, FillsInWhatIsLeftOut) {
  const auto url = RedisUrl::parse("redis://localhost/");
  EXPECT_EQ(url.address(), "localhost:6379");
  EXPECT_EQ(url.database, 0);
  EXPECT_TRUE(url.password.empty());
  EXPECT_EQ(RedisUrl::parse("redis://:secret@h").password, "secret");
  EXPECT_EQ(RedisUrl::parse("redis://[::1]:7000").host, "::1");
  EXPECT_EQ(RedisUrl::parse("redis://[::1]:7000").port, 7000);
}

TEST(RedisUrl, RefusesWhatItCannotMean) {
  for (const char* url :
       {"localhost:6379", "http://localhost", "redis://", "redis://:6379", "redis://h:", "redis://h:0",
        "redis://h:65536", "redis://h:12x", "redis://h/x", "redis://h/-1", "redis://u@h", "redis://:p%4@h",
        "redis://:p%zz@h", "redis://[::1", "redis://[::1]7000"}) {
    EXPECT_THROW(RedisUrl::parse(url), Error) << url;
  }
}

TEST(RedisUrl, KeepsPasswordsOutOfMessages) {
  for (const char* url :
       {"redis://u:hunter2%4@h", "redis://hunter2@h", "redis://u:hunter2@h:x", "http://u:hunter2@h"}) {
    try {
      RedisUrl::parse(url);
      FAIL() << url;
    } catch (const Error& error) {
      EXPECT_EQ(error.full().find("hunter2"), std::string::npos) << error.full();
    }
  }
}

TEST(InstanceRecord, SurvivesItsJson) {
  const Instance instance{.id = "host-1-2",
                          .endpoint = "http://127.0.0.1:8000",
                          .models = {"smollm2", "org/repo \"x\""},
                          .version = "0.1.0",
                          .pid = 4711,
                          .started_unix_s = 1764000000};
  EXPECT_EQ(instance_from_json(instance_to_json(instance)), instance);
}

TEST(InstanceRecord, RefusesOtherJson) {
  for (const char* text : {"", "[]", "{}", "{\"id\":1}", "nonsense"})
    EXPECT_THROW(instance_from_json(text), Error) << text;
}

TEST(RetryPause, DoublesUpToTheLongest) {
  const HeartbeatTiming timing{.first_retry = milliseconds(500), .longest_retry = milliseconds(3000)};
  EXPECT_EQ(retry_pause(timing, 1), milliseconds(500));
  EXPECT_EQ(retry_pause(timing, 2), milliseconds(1000));
  EXPECT_EQ(retry_pause(timing, 3), milliseconds(2000));
  EXPECT_EQ(retry_pause(timing, 4), milliseconds(3000));
  EXPECT_EQ(retry_pause(timing, 1000000), milliseconds(3000));
}

}  // namespace
}  // namespace mlxs
