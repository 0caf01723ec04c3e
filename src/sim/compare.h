// Several simulations at once, one a core. Blocks until all are done; the first error of any is thrown then.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "sim/policies.h"

namespace mlxs {

struct SimJob {
  SimPolicy policy;
  double requests_per_s = 0;                          // what the traffic was asked for; 0: a trace's own
  SimSetup setup;                                     // under that policy
  std::function<std::unique_ptr<Traffic>()> traffic;  // called on the job's thread
};

struct SimRun {
  SimPolicy policy;
  double requests_per_s = 0;
  SimReport report;
};

std::vector<SimRun> run_jobs(const std::vector<SimJob>& jobs);  // in the order of the jobs

}  // namespace mlxs
