#include "admit/rate_limiter.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace mlxs {
namespace {

constexpr double kMinute = 60;
constexpr auto kSweep = std::chrono::minutes(2);  // after it whoever paid no debt is full again

// What has run in since then.
void fill(double& level, TimePoint& since, std::int64_t limit, TimePoint now) {
  const double most = static_cast<double>(limit);
  level = std::min(most, level + to_seconds(now - since) * most / kMinute);
  since = now;
}

// Seconds until the level is there.
double until(double level, double wanted, std::int64_t limit) {
  return std::max(0.0, (wanted - level) * kMinute / static_cast<double>(limit));
}

RateState state(double level, std::int64_t limit) {
  if (limit == 0) return {};
  return {.limit = limit,
          .remaining = std::max<std::int64_t>(0, static_cast<std::int64_t>(std::floor(level))),
          .reset_s = until(level, static_cast<double>(limit), limit)};
}

}  // namespace

RateLimiter::Buckets& RateLimiter::of(std::string_view caller, const RateLimits& limits, TimePoint now) {
  const auto full = [now](std::int64_t limit) { return Bucket{static_cast<double>(limit), now}; };
  const auto [found, is_new] = buckets_.try_emplace(std::string(caller));
  Buckets& own = found->second;
  if (is_new) own = {.requests = full(limits.requests_per_minute), .tokens = full(limits.tokens_per_minute)};
  fill(own.requests.level, own.requests.since, limits.requests_per_minute, now);
  fill(own.tokens.level, own.tokens.since, limits.tokens_per_minute, now);
  return own;
}

RateDecision RateLimiter::admit(std::string_view caller, const RateLimits& limits) {
  const TimePoint now = clock_.now();
  const std::lock_guard lock(mutex_);
  if (now - swept_ > kSweep) forget_full(now);
  Buckets& own = of(caller, limits, now);
  RateDecision decision;
  const bool no_request = limits.requests_per_minute > 0 && own.requests.level < 1;
  const bool no_token = limits.tokens_per_minute > 0 && own.tokens.level < 1;
  if (no_request || no_token) {
    const double requests = no_request ? until(own.requests.level, 1, limits.requests_per_minute) : 0;
    const double tokens = no_token ? until(own.tokens.level, 1, limits.tokens_per_minute) : 0;
    decision.admitted = false;
    decision.out_of_tokens = tokens > requests;
    decision.retry_after_s = std::max(requests, tokens);
  } else if (limits.requests_per_minute > 0) {
    own.requests.level -= 1;
  }
  decision.requests = state(own.requests.level, limits.requests_per_minute);
  decision.tokens = state(own.tokens.level, limits.tokens_per_minute);
  return decision;
}

void RateLimiter::charge(std::string_view caller, const RateLimits& limits, std::int64_t tokens) {
  if (limits.tokens_per_minute == 0) return;
  const TimePoint now = clock_.now();
  const std::lock_guard lock(mutex_);
  of(caller, limits, now).tokens.level -= static_cast<double>(tokens);
}

std::size_t RateLimiter::callers() const {
  const std::lock_guard lock(mutex_);
  return buckets_.size();
}

// Who was not heard of for two minutes and has no debt is full, or will be when asked for.
void RateLimiter::forget_full(TimePoint now) {
  swept_ = now;
  std::erase_if(buckets_, [now](const auto& entry) {
    const Buckets& own = entry.second;
    return now - std::max(own.requests.since, own.tokens.since) > kSweep && own.tokens.level >= 0;
  });
}

}  // namespace mlxs
