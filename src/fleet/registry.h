// The list of live servers, kept in Redis: one key an instance, with a lifetime that its heartbeats renew.
// A server that dies without a word disappears when its key expires. Stateless functions over a RedisClient.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fleet/redis_client.h"

namespace mlxs {

struct Instance {
  std::string id;        // unique: host, pid and start time
  std::string endpoint;  // "http://127.0.0.1:8000"
  std::vector<std::string> models;
  std::string version;
  std::int64_t pid = 0;
  std::int64_t started_unix_s = 0;

  bool operator==(const Instance&) const = default;
};

// The stored form. from_json throws kInvalidJson on anything else than an instance; unknown keys are ignored,
// so that a newer server may say more.
std::string instance_to_json(const Instance& instance);
Instance instance_from_json(std::string_view text);

void register_instance(RedisClient& redis, const Instance& instance, std::chrono::milliseconds lifetime);
void deregister_instance(RedisClient& redis, std::string_view id);
// Live instances by id; entries that cannot be read are skipped with a warning.
std::vector<Instance> list_instances(RedisClient& redis);

// "host-pid-start" for this process.
std::string make_instance_id(std::int64_t started_unix_s);

}  // namespace mlxs
