#include "sim/sim_metrics.h"

#include <algorithm>

namespace mlxs {
namespace {

constexpr Duration kWindow = std::chrono::minutes(1);
constexpr double kOutputWeight = 2;  // as VTC charges (Sheng et al. 2024)

}  // namespace

SimMetrics::SimMetrics(SloTargets slo, const std::vector<std::string>& tenants)
    : slo_(slo), tenants_(tenants.size()), minute_end_(TimePoint{} + kWindow) {
  for (std::size_t i = 0; i < tenants.size(); ++i) tenants_[i].report.name = tenants[i];
}

void SimMetrics::advance(TimePoint now) {
  while (now >= minute_end_) {
    double least = 0, most = 0;
    bool any = false;
    for (Tenant& tenant : tenants_) {
      const double service = tenant.report.service - tenant.service_before;
      if (tenant.waited_throughout) {
        least = any ? std::min(least, service) : service;
        most = any ? std::max(most, service) : service;
        any = true;
      }
      tenant.service_before = tenant.report.service;
      tenant.waited_throughout = tenant.waiting > 0;
    }
    fairness_gap_ = std::max(fairness_gap_, most - least);
    minute_end_ += kWindow;
  }
}

void SimMetrics::submitted(const Request& request) {
  Tenant& tenant = tenant_of(request);
  ++tenant.report.submitted;
  tenant.waiting += request.waiting ? 1 : 0;
}

void SimMetrics::set_waiting(Request& request, bool waiting) {
  if (request.waiting == waiting) return;
  request.waiting = waiting;
  Tenant& tenant = tenant_of(request);
  tenant.waiting += waiting ? 1 : -1;
  if (tenant.waiting == 0) tenant.waited_throughout = false;
}

void SimMetrics::computed(const Request& request, std::int32_t prompt_tokens) {
  tenant_of(request).report.service += prompt_tokens;
}

void SimMetrics::token(Request& request, TimePoint now) {
  Tenant& tenant = tenant_of(request);
  tenant.report.service += kOutputWeight;
  if (request.produced++ == 0) {
    const double ttft = to_seconds(now - request.arrival);
    ttft_.add(ttft);
    tenant.report.ttft.add(ttft);
    longest_wait_s_ = std::max(longest_wait_s_, ttft);
    request.first_token = now;
  } else {
    itl_.add(to_seconds(now - request.last_token));
  }
  request.last_token = now;
}

void SimMetrics::ended(Request& request, SimEnd how, TimePoint now) {
  set_waiting(request, false);
  TenantReport& tenant = tenant_of(request).report;
  if (how == SimEnd::kRefused) {
    ++tenant.refused;
    return;
  }
  if (request.produced == 0) longest_wait_s_ = std::max(longest_wait_s_, to_seconds(now - request.arrival));
  if (how == SimEnd::kCancelled) {
    ++tenant.cancelled;
    return;
  }
  ++tenant.finished;
  const bool in_time = to_seconds(request.first_token - request.arrival) <=
                       slo_.ttft_s + slo_.ttft_per_token_s * request.prompt_tokens;
  const double generating = to_seconds(request.last_token - request.first_token);
  if (in_time && generating <= slo_.tpot_s * (request.produced - 1)) ++tenant.within_slo;
}

ClientReport SimMetrics::report() const {
  ClientReport all;
  for (const Tenant& tenant : tenants_) {
    const TenantReport& one = all.tenants.emplace_back(tenant.report);
    all.submitted += one.submitted;
    all.finished += one.finished;
    all.cancelled += one.cancelled;
    all.refused += one.refused;
    all.within_slo += one.within_slo;
  }
  all.ttft = ttft_;
  all.itl = itl_;
  all.itl_within_target = itl_.share_at_most(slo_.tpot_s);
  all.longest_wait_s = longest_wait_s_;
  all.fairness_gap = fairness_gap_;
  return all;
}

}  // namespace mlxs
