// When a request's first token will come, from what stands before it and the measured cost of steps. Pure.
#pragma once

#include <cstdint>
#include <span>

#include "sched/entry.h"
#include "sched/finish_rate.h"
#include "sched/step_cost.h"

namespace mlxs {

// What a request waits for before it samples: its own prompt and the backlog of its tier.
struct Backlog {
  std::int64_t prefill_tokens = 0;  // of others, computed before or beside its own
  std::int32_t own_tokens = 0;      // prompt tokens that the prefix cache does not hold
  std::int32_t decode_rows = 0;     // rows that every step spends on running answers
  std::int32_t ends = 0;            // requests that must end before it gets a slot and pages
};

// Adds what a running request means for a prompt of `backlog.own_tokens` in `tier`. `oldest`: the running
// prompt that was admitted first, which gets half of the budget whatever its tier.
void count_running(const SchedEntry& running, const SchedEntry* oldest, int tier, Backlog& backlog);

// Seconds until the first token; 0 while no step was measured.
double seconds_to_first_token(const Backlog& backlog, std::int32_t token_budget, const StepCost& cost,
                              const FinishRate& rate);

}  // namespace mlxs
