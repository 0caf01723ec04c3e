#include "serve/operations.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "serve/scheduler_stats.h"

namespace mlxs {
namespace {

HttpResponse json_response(const nlohmann::json& value, int status = 200) {
  return {.status = status, .body = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)};
}

HttpResponse health_response(const EngineHealth& health, bool good, const std::string& reason) {
  return json_response({{"status", good ? "ok" : "unavailable"},
                        {"live", health.live},
                        {"ready", health.ready},
                        {"reason", reason},
                        {"active_requests", health.active_requests},
                        {"last_step_age_seconds", health.last_step_age_seconds}},
                       good ? 200 : 503);
}

}  // namespace

void add_operations_routes(Router& router, Engine& engine, OperationsSources sources) {
  router.add(
      "GET", "/health/live",
      [&engine](const HttpRequest&, std::string_view) -> Reply {
        const EngineHealth health = engine.health();
        return health_response(health, health.live, health.live ? "" : health.reason);
      },
      Access::kOpen);
  const auto ready = [&engine, draining = std::move(sources.draining)](const HttpRequest&,
                                                                       std::string_view) -> Reply {
    EngineHealth health = engine.health();
    if (draining()) {
      health.ready = false;
      health.reason = "the server is draining";
    }
    return health_response(health, health.ready, health.reason);
  };
  router.add("GET", "/health/ready", ready);
  router.add("GET", "/health", ready);
  const auto add_bytes = [&router](const char* path, const char* type, std::function<std::string()> source) {
    if (!source) return;
    router.add(
        "GET", path,
        [type, source = std::move(source)](const HttpRequest&, std::string_view) -> Reply {
          return HttpResponse{.body = source(), .content_type = type};
        },
        Access::kAdmin);
  };
  add_bytes("/metrics", "text/plain; version=0.0.4; charset=utf-8", std::move(sources.metrics));
  add_bytes("/v1/flight", "application/octet-stream", std::move(sources.flight));
  router.add(
      "GET", "/v1/scheduler/stats",
      [&engine, throughput = std::move(sources.throughput)](const HttpRequest&, std::string_view) -> Reply {
        nlohmann::json data = nlohmann::json::array();
        const std::vector<ThroughputNow> rates = throughput ? throughput() : std::vector<ThroughputNow>{};
        for (const EngineSchedulerStats& stats : engine.scheduler_stats()) {
          nlohmann::json& model = data.emplace_back(scheduler_stats_json(stats));
          if (throughput) model["throughput"] = throughput_json(rates, stats.model);
        }
        return json_response({{"object", "list"},
                              {"data", std::move(data)},
                              {"metal_optimizations", metal_stats_json(engine.metal_optimizations_stats())}});
      },
      Access::kAdmin);
}

}  // namespace mlxs
