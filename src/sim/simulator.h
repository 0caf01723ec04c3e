// Runs the real Scheduler and KvPool under a virtual clock against a cost model: a day of traffic in seconds
// of CPU. Same inputs, same report, on every platform. One thread; nothing outlives simulate(). A request
// that never ends, ends twice or leaves a page behind throws kInternal: it would be a bug of the scheduler.
#pragma once

#include <cstdint>
#include <functional>

#include "sched/scheduler.h"
#include "sim/cost_model.h"
#include "sim/sim_metrics.h"
#include "sim/traffic.h"

namespace mlxs {

struct SimSetup {
  SchedulerConfig scheduler;
  KvPoolConfig kv;
  CostModel cost;
  SloTargets slo;
  bool ignore_priorities = false;  // every request is kNormal
};

struct SimReport {
  SchedulerStats scheduler;
  ClientReport clients;
  double seconds = 0;       // virtual, until the last request ended
  double busy_seconds = 0;  // of these, in steps
  std::uint64_t computed_tokens = 0;

  double goodput() const {  // requests within their targets a second
    return seconds > 0 ? static_cast<double>(clients.within_slo) / seconds : 0;
  }
  // Of the requests that clients did not give up.
  double slo_share() const {
    const auto kept = clients.submitted - clients.cancelled;
    return kept > 0 ? static_cast<double>(clients.within_slo) / static_cast<double>(kept) : 1;
  }
  // Of computed tokens. Those of requests that did not finish count as needed.
  double recomputed_share() const {
    const double needed = static_cast<double>(scheduler.prompt_tokens - scheduler.cached_prompt_tokens +
                                              scheduler.generated_tokens);
    const auto computed = static_cast<double>(computed_tokens);
    return computed > needed ? (computed - needed) / computed : 0;
  }
  double hit_rate() const {  // of prompt tokens, those that the prefix cache held
    return scheduler.prompt_tokens > 0 ? static_cast<double>(scheduler.cached_prompt_tokens) /
                                             static_cast<double>(scheduler.prompt_tokens)
                                       : 0;
  }
};

// Sees every plan before it "runs".
using PlanObserver = std::function<void(TimePoint, const StepPlan&, const Scheduler&)>;

SimReport simulate(const SimSetup& setup, Traffic& traffic, const PlanObserver& observe = {});

}  // namespace mlxs
