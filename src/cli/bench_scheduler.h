// What scheduling costs: the scheduler alone, under a load that never changes, on made-up tokens. What
// `mlx-serving bench scheduler` runs and prints. Deterministic but for the times.
#pragma once

#include <cstdint>

#include "cli/commands.h"

namespace mlxs::cli {

struct SchedulerBench {
  int running = 256;   // answers that run in every step
  int waiting = 1000;  // kept waiting
  int tenants = 8;     // take turns
  int prompt_tokens = 512, answer_tokens = 256;
  int steps = 5000;  // measured
};

struct SchedulerCost {  // of one step
  double p50_us = 0, p95_us = 0, p99_us = 0, mean_us = 0;
};

struct SchedulerFigures {
  SchedulerCost step;                               // plan and commit
  double add_us = 0;                                // mean of an arrival
  double decode_rows = 0, spans = 0, admitted = 0;  // of a step, mean
  std::uint64_t preemptions = 0;
};

SchedulerFigures run_scheduler(const SchedulerBench& what);
void add_scheduler_bench(CLI::App& bench, Action& action);  // the subcommand

}  // namespace mlxs::cli
