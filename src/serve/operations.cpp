#include "serve/operations.h"

#include <nlohmann/json.hpp>
#include <utility>

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

nlohmann::json stats_json(const EngineSchedulerStats& s) {
  nlohmann::json misses = nlohmann::json::object(), recent = nlohmann::json::array();
  for (const auto& [reason, count] : s.prefix_misses) misses[std::string(reason)] = count;
  for (const auto& [reason, token] : s.recent_prefix_misses) {
    recent.push_back({{"reason", reason}, {"token", token}});
  }
  nlohmann::json disk;  // null: there is no disk tier
  if (s.disk_tier) {
    disk = {{"saved_pages", s.disk_saved_pages},
            {"restored_pages", s.disk_restored_pages},
            {"files", s.disk_files},
            {"bytes", s.disk_bytes},
            {"damaged_files", s.disk_damaged_files},
            {"failed_writes", s.disk_failed_writes}};
  }
  return {{"model", s.model},
          {"running", s.running},
          {"waiting", s.waiting},
          {"paused", s.paused},
          {"steps", s.steps},
          {"admitted", s.admitted},
          {"finished", s.finished},
          {"refused", s.refused},
          {"preemptions", s.preemptions},
          {"prompt_tokens", s.prompt_tokens},
          {"generated_tokens", s.generated_tokens},
          {"cached_prompt_tokens", s.cached_prompt_tokens},
          {"kv_pages",
           {{"total", s.kv_pages_total},
            {"held", s.kv_pages_held},
            {"cached", s.kv_pages_cached},
            {"free", s.kv_pages_free}}},
          {"prefix_query_tokens", s.prefix_query_tokens},
          {"prefix_hit_tokens", s.prefix_hit_tokens},
          {"slo",
           {{"requests", s.slo_requests},
            {"met", s.slo_met},
            {"missed_ttft", s.slo_missed_ttft},
            {"missed_tpot", s.slo_missed_tpot},
            {"refused", s.slo_refused},
            {"promoted", s.slo_promoted},
            {"goodput_tokens", s.goodput_tokens}}},
          {"step_cost_ms", {{"fixed", s.step_fixed_ms}, {"per_token", s.step_token_ms}}},
          {"prefix_cache",
           {{"entries", s.prefix_entries},
            {"evicted_pages", s.prefix_evicted_pages},
            {"expired_pages", s.prefix_expired_pages},
            {"misses", std::move(misses)},
            {"recent_misses", std::move(recent)},
            {"disk", std::move(disk)}}}};
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
  router.add(
      "GET", "/metrics",
      [metrics = std::move(sources.metrics)](const HttpRequest&, std::string_view) -> Reply {
        return HttpResponse{.body = metrics(), .content_type = "text/plain; version=0.0.4; charset=utf-8"};
      },
      Access::kAdmin);
  router.add(
      "GET", "/v1/scheduler/stats",
      [&engine](const HttpRequest&, std::string_view) -> Reply {
        nlohmann::json data = nlohmann::json::array();
        for (const EngineSchedulerStats& stats : engine.scheduler_stats()) data.push_back(stats_json(stats));
        return json_response({{"object", "list"}, {"data", std::move(data)}});
      },
      Access::kAdmin);
}

}  // namespace mlxs
