// What a simulated run was like for its clients: latencies, requests within their targets, service of
// tenants. Fed by the simulator in order of time; one thread. Times are virtual.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "sim/latency_histogram.h"
#include "sim/traffic.h"

namespace mlxs {

// A request is within its targets if its first token came in time and its tokens came at the pace (the mean
// gap, as DistServe counts it, Zhong et al. 2024).
struct SloTargets {
  double ttft_s = 1;               // for a prompt of no tokens
  double ttft_per_token_s = 1e-4;  // and this much more for each: nobody expects 32k tokens read at once
  double tpot_s = 0.05;
};

struct TenantReport {
  std::string name;
  std::uint64_t submitted = 0, finished = 0, cancelled = 0, refused = 0;
  std::uint64_t within_slo = 0;  // of the finished
  double service = 0;            // prompt tokens computed + 2 × tokens generated
  LatencyHistogram ttft;
};

struct ClientReport {
  std::uint64_t submitted = 0, finished = 0, cancelled = 0, refused = 0;
  std::uint64_t within_slo = 0;  // of the finished
  LatencyHistogram ttft, itl;
  double itl_within_target = 1;  // share of the gaps between tokens
  double longest_wait_s = 0;     // arrival to first token, or to the end without one
  // The largest difference of service, in one minute, between two tenants that both had requests waiting all
  // that minute; 0 if no two ever had.
  double fairness_gap = 0;
  std::vector<TenantReport> tenants;
};

class SimMetrics {
 public:
  struct Request {
    TimePoint arrival{}, first_token{}, last_token{};
    std::int32_t prompt_tokens = 0, produced = 0, tenant = 0;
    bool waiting = true;  // has no row in the steps: not admitted yet, or preempted
  };

  SimMetrics(SloTargets slo, const std::vector<std::string>& tenants);

  void submitted(const Request& request);
  void set_waiting(Request& request, bool waiting);
  void computed(const Request& request, std::int32_t prompt_tokens);
  void token(Request& request, TimePoint now);
  void ended(Request& request, SimEnd how, TimePoint now);
  // Nothing happens for `now`'s minute before this call that belongs to an earlier one.
  void advance(TimePoint now);
  ClientReport report() const;

 private:
  struct Tenant {
    TenantReport report;
    std::int64_t waiting = 0;
    bool waited_throughout = false;  // this minute
    double service_before = 0;       // this minute
  };
  Tenant& tenant_of(const Request& request) { return tenants_[static_cast<std::size_t>(request.tenant)]; }

  SloTargets slo_;
  std::vector<Tenant> tenants_;
  TimePoint minute_end_;
  LatencyHistogram ttft_, itl_;
  double longest_wait_s_ = 0, fairness_gap_ = 0;
};

}  // namespace mlxs
