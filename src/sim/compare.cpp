#include "sim/compare.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

namespace mlxs {

std::vector<SimRun> run_jobs(const std::vector<SimJob>& jobs) {
  std::vector<SimRun> runs(jobs.size());
  std::vector<std::exception_ptr> errors(jobs.size());
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < jobs.size(); i = next++) {
      try {
        const auto traffic = jobs[i].traffic();
        runs[i] = {jobs[i].policy, jobs[i].requests_per_s, simulate(jobs[i].setup, *traffic)};
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    const std::size_t cores = std::max(1u, std::thread::hardware_concurrency());
    for (std::size_t i = 1; i < std::min(cores, jobs.size()); ++i) threads.emplace_back(work);
    work();
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  return runs;
}

}  // namespace mlxs
