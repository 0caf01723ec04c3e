// Every metric of the registry, with every value of its labels, shows something once its source has something
// to show: none can be there that nothing feeds. That the sources themselves move is tested where they are,
// and for the built program by tests/e2e/test_metrics_move.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "telemetry/metrics.h"

namespace mlxs {
namespace {

// Other engines' names for what this one has none of: they are there so that dashboards have a 0.
const std::set<std::string> kNothingToShow{
    "vllm:spec_decode_num_drafts_total", "vllm:spec_decode_num_draft_tokens_total",
    "vllm:spec_decode_num_accepted_tokens_total", "vllm:lora_requests_info"};

EngineSchedulerStats everything_of_a_scheduler() {
  PageAges ages;
  ages.add(0.5);
  EngineSchedulerStats s;
  s.model = "m";
  s.running = s.waiting = s.paused = s.concurrency_limit = 1;
  s.steps = s.admitted = s.refused = s.preemptions = 1;
  s.kv_pages_total = 4;
  s.kv_pages_held = s.kv_pages_cached = s.kv_pages_free = 1;
  s.kv_pages_passed = s.kv_pages_branched = 1;
  s.kv_window_pages_total = 3;
  s.kv_window_pages_held = s.kv_window_pages_cached = 1;
  s.kv_window_pages_passed = s.kv_window_pages_evicted = 1;
  s.prefix_query_tokens = s.prefix_hit_tokens = 1;
  s.pinned_prompts = s.pinned_pages = 1;
  s.pins = s.pin_hits = s.pins_expired = s.pins_displaced = s.pins_refused = 1;
  s.slo_requests = s.slo_met = s.slo_missed_ttft = s.slo_missed_tpot = 1;
  s.slo_refused = s.slo_promoted = s.goodput_tokens = 1;
  s.token_budget = 1;
  s.steps_ahead = s.void_rows = 1;
  s.hidden_seconds = 1;
  s.overtakings = s.displaced = s.swaps = s.swapped_pages = 1;
  s.swap_slots = 2;
  s.swap_slots_used = 1;
  s.swap_page_ms = 1;
  s.window = {.fast_path = 1,
              .normal = 1,
              .degradation_events = 1,
              .adjustments = 1,
              .transitions = 1,
              .batch_size = 1,
              .window_ms = 1,
              .ema_queue_depth = 1};
  s.step_fixed_ms = s.step_token_ms = 1;
  s.prefix_entries = 1;
  s.prefix_evicted_pages = s.prefix_expired_pages = 1;
  s.prefix_misses = {{"evicted", 1}, {"expired", 1}, {"diverged", 1}, {"new", 1}, {"window", 1}};
  s.disk_saved_pages = s.disk_restored_pages = s.disk_bytes = s.disk_failed_writes = 1;
  s.blocked_tokens.fill(1);
  s.kv_page_tokens = 16;
  s.oldest_cached_page_seconds = 1;
  s.reused_page_ages = s.evicted_page_ages = ages;
  return s;
}

MetalOptimizationsStats everything_of_a_device() {
  MetalOptimizationsStats device;
  device.memory_pool = {.enabled = true,
                        .total_acquired = 1,
                        .total_released = 1,
                        .exhaustion_events = 1,
                        .fallback_events = 1,
                        .pool_size = 2,
                        .available_count = 1};
  device.blit_queue = {.enabled = true,
                       .total_uploads = 1,
                       .total_downloads = 1,
                       .uploaded_bytes = 1,
                       .upload_ms = 1,
                       .download_ms = 1,
                       .total_overlap_ms = 1,
                       .sync_wait_count = 1,
                       .sync_wait_ms = 1};
  device.command_buffer_ring = {.enabled = true,
                                .ring_size = 2,
                                .available_count = 1,
                                .total_acquired = 1,
                                .wait_events = 1,
                                .timeout_events = 1};
  return device;
}

void observe_everything(MetricsObserver& metrics) {
  metrics.on_step({.model = "m",
                   .prefill_tokens = 1,
                   .plan_seconds = 1,
                   .run_seconds = 1,
                   .launch_seconds = 1,
                   .sample_seconds = 1,
                   .wait_seconds = 1,
                   .mask_seconds = 1,
                   .commit_seconds = 1,
                   .failed = true});
  metrics.on_first_token("m", 1);
  metrics.on_inter_token("m", 1);
  for (const char* finish : {"stop", "length", "cancelled", "error"}) {
    RequestRecord record{.model = "m",
                         .user = "t",
                         .finish = finish,
                         .prompt_tokens = 2,
                         .cached_prompt_tokens = 1,
                         .generated_tokens = 2,
                         .max_tokens = 2,
                         .queue_seconds = 1,
                         .ttft_seconds = 8,
                         .e2e_seconds = 9,
                         .mask_seconds = 1};
    record.part_seconds.fill(1);
    metrics.on_finished(record);
  }
  PromptChoices prompt(2);
  prompt.longest_tokens = 2;
  RequestTimeline ended;
  ended.model = "m";
  ended.preemptions.resize(1);
  metrics.on_choice_ended(ended, &prompt);
}

TEST(EveryMetric, ShowsItsSource) {
  ManualClock clock;
  clock.advance(std::chrono::hours(1));
  MetricsObserver metrics(clock);
  observe_everything(metrics);
  clock.advance(std::chrono::seconds(1));
  const EngineSchedulerStats scheduler = everything_of_a_scheduler();
  ModelInfo model;
  model.id = "m";
  model.load_seconds = 1;
  model.weight_bytes = model.kv_bytes = 1;
  ServerCounters server;
  server.answered(200, 1, 1);
  server.answered(0, 0, 0);
  server.rate_limited = server.slow_readers = 1;
  server.connections = server.websockets = server.streams = 1;
  const ExportCounts exports{.requests_unreported = 1,
                             .traces_sent = 1,
                             .traces_dropped = 1,
                             .metrics_sent = 1,
                             .failures = 1,
                             .stalls = 1,
                             .flight_dumps = 1};
  const MetalOptimizationsStats device = everything_of_a_device();

  std::set<std::string> silent;
  for (const auto& family : metrics.families({.schedulers = std::span(&scheduler, 1),
                            .models = std::span(&model, 1),
                            .server = &server,
                            .exports = &exports,
                            .device = &device})) {
    EXPECT_FALSE(family.metric.empty()) << family.name;
    for (const auto& metric : family.metric) {
      const double shown = family.type == prometheus::MetricType::Histogram ? metric.histogram.sample_sum
                           : family.type == prometheus::MetricType::Counter ? metric.counter.value
                                                                            : metric.gauge.value;
      if (shown != 0) continue;
      std::string label;
      for (const auto& one : metric.label) label += " " + one.name + "=" + one.value;
      silent.insert(kNothingToShow.contains(family.name) ? family.name : family.name + label);
    }
  }
  EXPECT_EQ(silent, kNothingToShow);
}

}  // namespace
}  // namespace mlxs
