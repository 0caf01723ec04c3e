// The scheduling policies that the simulator sets side by side: names for settings of the one Scheduler.
// Values; pure.
#pragma once

#include <string>
#include <vector>

#include "sim/simulator.h"

namespace mlxs {

struct SimPolicy {
  std::string name;     // as --policies takes it
  std::string heading;  // as tables and plots print it
  PrefillOrder prefill_order = PrefillOrder::kShortestFirst;
  bool priorities = true;
  bool fair = true;  // between tenants, in tokens
};

std::vector<SimPolicy> sim_policies();
// `setup` under that policy. Without chunks a step takes as many prompts as fill one context.
SimSetup with_policy(SimSetup setup, const SimPolicy& policy);

}  // namespace mlxs
