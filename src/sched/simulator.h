// Runs the real Scheduler and KvPool under a virtual clock against a cost model: a day of traffic in seconds
// of CPU. Same inputs, same report, on every platform. One thread; nothing outlives simulate().
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "sched/scheduler.h"

namespace mlxs {

// Duration of a step: step_s + its tokens * token_s.
struct CostModel {
  double step_s = 4e-3;
  double token_s = 1e-4;
};

struct SimRequest {
  SchedRequest request;
  std::int32_t output_tokens = 1;  // the engine's stop condition; ≤ request.max_new_tokens
};

// The next request in order of arrival; nullopt at the end. Arrivals count from TimePoint{}.
using Traffic = std::function<std::optional<SimRequest>()>;

struct PoissonTraffic {
  double requests_per_s = 1;
  std::int64_t requests = 1000;
  std::uint64_t seed = 1;
  std::int32_t mean_prompt = 200,
               mean_output = 100;   // tokens, exponentially distributed; at most 8 times the mean
  std::int32_t system_prompt = 0;   // first tokens, shared by all requests
  double long_share = 0;            // of the requests, with prompts of
  std::int32_t long_prompt = 4000;  // this many tokens
  Priority priority = Priority::kNormal;
};
Traffic poisson_traffic(const PoissonTraffic& traffic);

struct Percentiles {
  double p50 = 0, p95 = 0, p99 = 0, max = 0;  // seconds; within 2 %, max exact
};

struct SimReport {
  SchedulerStats scheduler;
  double seconds = 0;  // virtual, until the last request ended
  std::uint64_t computed_tokens = 0;
  Percentiles ttft, itl;
};

// observe, if given, sees every plan before it "runs".
SimReport simulate(const SchedulerConfig& config, const KvPoolConfig& kv, const CostModel& cost,
                   const Traffic& traffic,
                   const std::function<void(TimePoint, const StepPlan&, const Scheduler&)>& observe = {});

}  // namespace mlxs
