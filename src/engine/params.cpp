#include "engine/params.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/log.h"
#include "engine/load_plan.h"

namespace mlxs {
namespace {

constexpr std::size_t kLongestCacheSalt = 2048;

[[noreturn]] void refuse(std::string_view field, const std::string& value, const std::string& rule) {
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{} = {} is out of range", field, value),
              fmt::format("{} must be {}", field, rule), std::string(field));
}

// Closed interval; NaN is refused.
void check_range(std::string_view field, double value, double low, double high) {
  if (!(value >= low && value <= high))
    refuse(field, fmt::format("{}", value), fmt::format("{} … {}", low, high));
}

Priority to_sched(RequestPriority priority) {
  switch (priority) {
    case RequestPriority::kCritical:
      return Priority::kCritical;
    case RequestPriority::kHigh:
      return Priority::kHigh;
    case RequestPriority::kNormal:
      return Priority::kNormal;
    case RequestPriority::kLow:
      return Priority::kLow;
  }
  return Priority::kNormal;
}

}  // namespace

void validate(const GenerateParams& p, int vocabulary) {
  if (p.max_tokens) check_range("max_tokens", *p.max_tokens, 1, 1 << 24);
  check_range("temperature", p.temperature, 0, 2);
  check_range("top_k", p.top_k, 0, 1 << 24);
  check_range("top_p", p.top_p, 0, 1);
  if (p.top_p == 0) refuse("top_p", "0", "greater than 0 and at most 1");
  check_range("min_p", p.min_p, 0, 1);
  if (p.min_p == 1) refuse("min_p", "1", "at least 0 and less than 1");
  check_range("presence_penalty", p.presence_penalty, -2, 2);
  check_range("frequency_penalty", p.frequency_penalty, -2, 2);
  check_range("repetition_penalty", p.repetition_penalty, 0.01, 100);
  check_range("top_logprobs", p.top_logprobs, -1, 20);
  constexpr double kHour = 3600e3;
  if (p.slo_ttft_ms != 0) check_range("slo_ttft_ms", p.slo_ttft_ms, 1, kHour);
  if (p.slo_tpot_ms != 0) check_range("slo_tpot_ms", p.slo_tpot_ms, 1, kHour);
  if (p.stop.size() > 16) refuse("stop", fmt::format("{} strings", p.stop.size()), "at most 16 strings");
  for (const std::string& stop : p.stop) {
    if (stop.empty() || stop.size() > 1024) {
      refuse("stop", fmt::format("a string of {} bytes", stop.size()), "strings of 1 … 1024 bytes");
    }
  }
  if (p.stop_token_ids.size() > 100) {
    refuse("stop_token_ids", fmt::format("{} ids", p.stop_token_ids.size()), "at most 100 ids");
  }
  for (const std::int32_t id : p.stop_token_ids) check_range("stop_token_ids", id, 0, vocabulary - 1);
  if (p.cache_salt.size() > kLongestCacheSalt) {
    refuse("cache_salt", fmt::format("a string of {} bytes", p.cache_salt.size()),
           fmt::format("at most {} bytes", kLongestCacheSalt));
  }
  constexpr double kWeek = 7 * 24 * kHour;
  if (p.pins.size() > 8) refuse("pins", fmt::format("{} pins", p.pins.size()), "at most 8");
  for (const PromptPin& pin : p.pins) {
    check_range("pins.tokens", pin.tokens, 0, 1 << 24);
    check_range("pins.ttl_ms", pin.ttl_ms, 0, kWeek);
  }
  for (const auto& [token, bias] : p.logit_bias) {
    check_range("logit_bias", token, 0, vocabulary - 1);
    check_range("logit_bias", bias, -100, 100);
  }
}

void clamp(EngineOptions& o) {
  const auto move_inside = [](std::string_view name, int& value, int low, int high) {
    const int moved = std::clamp(value, low, high);
    if (moved != value) log::warn("{} = {} is outside {} … {}: taken as {}", name, value, low, high, moved);
    value = moved;
  };
  constexpr int kDayMs = 86'400'000, kHourMs = 3'600'000;
  if (o.prefix_cache_ttl_ms != 0) move_inside("prefix_cache_ttl_ms", o.prefix_cache_ttl_ms, 1000, kDayMs);
  move_inside("prefix_cache_max_entries", o.prefix_cache_max_entries, 1, 1'000'000);
  move_inside("prefix_cache_pin_ttl_ms", o.prefix_cache_pin_ttl_ms, 1000, 7 * kDayMs);
  move_inside("aging_interval_ms", o.aging_interval_ms, 100, kHourMs);
}

void validate(const EngineOptions& o) {
  if (!o.prefix_cache_dir.empty() && !o.prefix_cache) {
    refuse("prefix_cache_dir", o.prefix_cache_dir, "empty where prefix_cache is off");
  }
  check_range("threads", o.threads, 0, 256);
  check_range("max_running", o.max_running, 1, 4096);
  check_range("max_queue_depth", o.max_queue_depth, 1, 1 << 20);
  if (o.token_budget != 0) check_range("token_budget", o.token_budget, 16, 65536);
  check_range("large_step_ms", o.large_step_ms, 0, 60e3);
  check_range("ring_depth", o.ring_depth, 0, 3);
  check_range("kv_window_share", o.kv_window_share, 0, 1);
  check_range("prefix_cache_pin_share", o.prefix_cache_pin_share, 0, 0.9);
  check_range("target_itl_ms", o.target_itl_ms, 0, 60e3);
  check_range("fair_prompt_weight", o.fair_prompt_weight, 1e-3, 1e3);
  check_range("fair_output_weight", o.fair_output_weight, 1e-3, 1e3);
  for (const auto& [tenant, weight] : o.tenant_weights) check_range("tenant_weights", weight, 1e-3, 1e3);
  check_range("max_loaded_models", o.max_loaded_models, 1, 1024);
}

SchedulerConfig scheduler_config(const EngineOptions& options, int context_limit) {
  return {.max_running = options.max_running,
          .max_queue_depth = options.max_queue_depth,
          .token_budget = options.token_budget,
          .max_context = context_limit,
          .aging_interval = std::chrono::milliseconds(options.aging_interval_ms),
          .target_itl = from_ms(options.target_itl_ms),
          .sure_budget = options.large_step_ms > 0 ? std::min(kSureBudget, options.token_budget) : 0,
          .large_step = from_ms(options.large_step_ms),
          .fairness = {.enabled = options.fair_share,
                       .prompt_weight = options.fair_prompt_weight,
                       .output_weight = options.fair_output_weight},
          .pin_ttl = std::chrono::milliseconds(options.prefix_cache_pin_ttl_ms),
          .window = options.admission_window};
}

SchedRequest sched_request(const GenerateParams& params, const EngineOptions& options) {
  SchedRequest request;
  request.priority = to_sched(params.priority);
  request.slo = {.ttft = from_ms(params.slo_ttft_ms), .tpot = from_ms(params.slo_tpot_ms)};
  for (const auto& [tenant, weight] : options.tenant_weights) {
    if (tenant == params.user) request.tenant_weight = weight;
  }
  return request;
}

}  // namespace mlxs
