#include "serve/scheduler_stats.h"

#include <fmt/format.h>

#include <algorithm>

namespace mlxs {
namespace {

// Under the names of the GPU scheduler's get_stats. A job is a request, a batch is what one step lets start.
nlohmann::json window_json(const EngineSchedulerStats& stats) {
  const AdmissionWindowStats& w = stats.window;
  const auto rate = [](std::uint64_t part, std::uint64_t whole) {
    return static_cast<double>(part) / static_cast<double>(std::max<std::uint64_t>(1, whole));
  };
  const std::uint64_t batches = w.fast_path + w.normal;
  nlohmann::json transitions = nlohmann::json::array();
  for (const WindowTransition& transition : w.recent_transitions) {
    if (transition.reason.empty()) break;
    transitions.push_back({{"seconds_ago", transition.seconds_ago},
                           {"window_ms", transition.window_ms},
                           {"reason", transition.reason}});
  }
  return {{"enabled", w.enabled},
          {"total_jobs", stats.admitted},
          {"total_batches", batches},
          {"queue_size", stats.waiting},
          {"current_batch_size", w.batch_size},
          {"current_window_ms", w.window_ms},
          {"latency_p50_ms", w.p50_ms},
          {"latency_p95_ms", w.p95_ms},
          {"latency_p99_ms", w.p99_ms},
          {"latency_min_ms", w.min_ms},
          {"latency_max_ms", w.max_ms},
          {"latency_mean_ms", w.mean_ms},
          {"sample_count", w.samples},
          {"degradation_events", w.degradation_events},
          {"fast_path",
           {{"enabled", w.fast_path_enabled},
            {"executions", w.fast_path},
            {"normal_executions", w.normal},
            {"total_executions", batches},
            {"fast_path_rate", rate(w.fast_path, batches)}}},
          {"adaptive_window",
           {{"enabled", w.adaptive},
            {"current_window_ms", w.window_ms},
            {"ema_queue_depth", w.ema_queue_depth},
            {"total_updates", w.updates},
            {"window_transitions", w.transitions},
            {"transition_rate", rate(w.transitions, w.updates)},
            {"recent_transitions", std::move(transitions)}}},
          {"auto_tune",
           {{"enabled", w.auto_tune},
            {"current_batch_size", w.batch_size},
            {"p99_latency_ms", w.p99_ms},
            {"ema_p99_ms", w.ema_p99_ms},
            {"batch_count", w.steps},
            {"adjustment_count", w.adjustments},
            {"degradation_events", w.degradation_events},
            {"stability", 1 - rate(w.adjustments, w.checks)}}}};
}

}  // namespace

nlohmann::json scheduler_stats_json(const EngineSchedulerStats& s) {
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
          {"concurrency_limit", s.concurrency_limit},
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
            {"shared", s.kv_pages_shared},
            {"cached", s.kv_pages_cached},
            {"free", s.kv_pages_free},
            {"passed", s.kv_pages_passed},
            {"branched", s.kv_pages_branched},
            {"map", s.kv_page_map}}},
          {"kv_window_pages",
           {{"total", s.kv_window_pages_total},
            {"held", s.kv_window_pages_held},
            {"cached", s.kv_window_pages_cached},
            {"passed", s.kv_window_pages_passed},
            {"evicted", s.kv_window_pages_evicted}}},
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
          {"token_budget", s.token_budget},
          {"ring_depth", s.ring_depth},
          {"steps_ahead",
           {{"enabled", s.runs_ahead},
            {"steps", s.steps_ahead},
            {"void_rows", s.void_rows},
            {"hidden_seconds", s.hidden_seconds}}},
          {"overtakings", s.overtakings},
          {"displaced", s.displaced},
          {"swap",
           {{"preemptions", s.swaps},
            {"pages", s.swapped_pages},
            {"slots", s.swap_slots},
            {"slots_used", s.swap_slots_used},
            {"page_ms", s.swap_page_ms}}},
          {"gpu_scheduler", window_json(s)},
          {"step_cost_ms", {{"fixed", s.step_fixed_ms}, {"per_token", s.step_token_ms}}},
          {"prefix_cache",
           {{"entries", s.prefix_entries},
            {"evicted_pages", s.prefix_evicted_pages},
            {"expired_pages", s.prefix_expired_pages},
            {"misses", std::move(misses)},
            {"pinned",
             {{"prompts", s.pinned_prompts},
              {"pages", s.pinned_pages},
              {"max_pages", s.pinned_pages_most},
              {"total", s.pins},
              {"hits", s.pin_hits},
              {"expired", s.pins_expired},
              {"displaced", s.pins_displaced},
              {"refused", s.pins_refused}}},
            {"recent_misses", std::move(recent)},
            {"disk", std::move(disk)}}}};
}

nlohmann::json throughput_json(std::span<const ThroughputNow> all, std::string_view model) {
  const auto found = std::ranges::find(all, model, &ThroughputNow::model);
  const ThroughputNow now = found == all.end() ? ThroughputNow{} : *found;
  nlohmann::json tokens, requests;
  for (std::size_t i = 0; i < SlidingRate::kWindowSeconds.size(); ++i) {
    const std::string window = fmt::format("{}s", SlidingRate::kWindowSeconds[i]);
    tokens[window] = now.tokens_per_second[i];
    requests[window] = now.requests_per_second[i];
  }
  return {{"tokens_per_second", std::move(tokens)}, {"requests_per_second", std::move(requests)}};
}

nlohmann::json metal_stats_json(const MetalOptimizationsStats& stats) {
  const nlohmann::json off = nlohmann::json::object({{"enabled", false}});
  nlohmann::json pool = off, blit = off, ring = off;
  if (const MemoryPoolStats& p = stats.memory_pool; p.enabled) {
    pool = {{"enabled", true},
            {"total_acquired", p.total_acquired},
            {"total_released", p.total_released},
            {"exhaustion_events", p.exhaustion_events},
            {"fallback_events", p.fallback_events},
            {"pool_size", p.pool_size},
            {"available_count", p.available_count},
            {"utilization", p.utilization()}};
  }
  if (const BlitQueueStats& b = stats.blit_queue; b.enabled) {
    blit = {{"enabled", true},
            {"total_uploads", b.total_uploads},
            {"total_downloads", b.total_downloads},
            {"uploaded_bytes", b.uploaded_bytes},
            {"avg_upload_ms", b.avg_upload_ms()},
            {"avg_download_ms", b.avg_download_ms()},
            {"total_overlap_ms", b.total_overlap_ms},
            {"overlap_ratio", b.overlap_ratio()},
            {"sync_wait_count", b.sync_wait_count},
            {"avg_sync_wait_ms", b.avg_sync_wait_ms()}};
  }
  if (const CommandBufferRingStats& r = stats.command_buffer_ring; r.enabled) {
    ring = {{"enabled", true},
            {"ring_size", r.ring_size},
            {"available_count", r.available_count},
            {"in_flight_count", r.in_flight_count},
            {"total_acquired", r.total_acquired},
            {"total_released", r.total_released},
            {"wait_events", r.wait_events},
            {"timeout_events", r.timeout_events},
            {"rotations", r.rotations},
            {"avg_wait_time_us", r.avg_wait_time_us},
            {"max_wait_time_us", r.max_wait_time_us}};
  }
  return {{"memory_pool", std::move(pool)},
          {"blit_queue", std::move(blit)},
          {"command_buffer_ring", std::move(ring)}};
}

}  // namespace mlxs
