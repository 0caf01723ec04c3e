#include "sim/policies.h"

#include <algorithm>

namespace mlxs {

std::vector<SimPolicy> sim_policies() {
  return {{"fcfs-whole", "FCFS, whole prompts", PrefillOrder::kFcfsWhole, false},
          {"fcfs", "FCFS, chunks", PrefillOrder::kFcfs, false},
          {"priority", "priority, chunks", PrefillOrder::kFcfs, true},
          {"ours", "ours", PrefillOrder::kShortestFirst, true}};
}

SimSetup with_policy(SimSetup setup, const SimPolicy& policy) {
  setup.ignore_priorities = !policy.priorities;
  setup.scheduler.prefill_order = policy.prefill_order;
  if (policy.prefill_order == PrefillOrder::kFcfsWhole) {
    setup.scheduler.token_budget = std::max(setup.scheduler.token_budget, setup.scheduler.max_context);
  }
  return setup;
}

}  // namespace mlxs
