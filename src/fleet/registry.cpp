#include "fleet/registry.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

constexpr std::string_view kPrefix = "mlxs:instance:";

}  // namespace

std::string instance_to_json(const Instance& instance) {
  const nlohmann::json json{{"id", instance.id},         {"endpoint", instance.endpoint},
                            {"models", instance.models}, {"version", instance.version},
                            {"pid", instance.pid},       {"started_unix_s", instance.started_unix_s}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Instance instance_from_json(std::string_view text) {
  try {
    const auto json = nlohmann::json::parse(text);
    Instance instance;
    json.at("id").get_to(instance.id);
    json.at("endpoint").get_to(instance.endpoint);
    json.at("models").get_to(instance.models);
    json.at("version").get_to(instance.version);
    json.at("pid").get_to(instance.pid);
    json.at("started_unix_s").get_to(instance.started_unix_s);
    return instance;
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kInvalidJson, fmt::format("not an instance record: {}", error.what()));
  }
}

void register_instance(RedisClient& redis, const Instance& instance, std::chrono::milliseconds lifetime) {
  redis.command({"SET", fmt::format("{}{}", kPrefix, instance.id), instance_to_json(instance), "PX",
                 std::to_string(lifetime.count())});
}

void deregister_instance(RedisClient& redis, std::string_view id) {
  redis.command({"DEL", fmt::format("{}{}", kPrefix, id)});
}

std::vector<Instance> list_instances(RedisClient& redis) {
  std::vector<std::string> keys;
  std::string cursor = "0";
  do {  // SCAN may name a key more than once
    const RedisReply reply =
        redis.command({"SCAN", cursor, "MATCH", fmt::format("{}*", kPrefix), "COUNT", "100"});
    if (reply.items.size() != 2)
      throw Error(ErrorCode::kUnavailable, "Redis answered SCAN with something else");
    cursor = reply.items[0].text;
    for (const RedisReply& key : reply.items[1].items) keys.push_back(key.text);
  } while (cursor != "0");
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());

  std::vector<Instance> instances;
  for (const std::string& key : keys) {
    const RedisReply value = redis.command({"GET", key});
    if (value.nil) continue;  // expired since the scan
    try {
      instances.push_back(instance_from_json(value.text));
    } catch (const Error& error) {
      log::warn("registry entry {}: {}", key, error.full());
    }
  }
  return instances;
}

std::string make_instance_id(std::int64_t started_unix_s) {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return fmt::format("{}-{}-{}", host[0] != '\0' ? host.data() : "unknown", getpid(), started_unix_s);
}

}  // namespace mlxs
