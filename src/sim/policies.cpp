#include "sim/policies.h"

#include <algorithm>

namespace mlxs {

std::vector<SimPolicy> sim_policies() {
  return {{"fcfs-whole", "FCFS, whole prompts", PrefillOrder::kFcfsWhole, false, false},
          {"fcfs", "FCFS, chunks", PrefillOrder::kFcfs, false, false},
          {"priority", "priority, chunks", PrefillOrder::kFcfs, true, false},
          {"ours", "ours", PrefillOrder::kShortestFirst, true, true}};
}

SimSetup with_policy(SimSetup setup, const SimPolicy& policy) {
  setup.ignore_priorities = !policy.priorities;
  setup.scheduler.fairness.enabled = policy.fair;
  setup.scheduler.prefill_order = policy.prefill_order;
  if (policy.prefill_order == PrefillOrder::kFcfsWhole) {
    setup.scheduler.token_budget = std::max(setup.scheduler.token_budget, setup.scheduler.max_context);
    setup.scheduler.sure_budget = 0;
  }
  return setup;
}

}  // namespace mlxs
