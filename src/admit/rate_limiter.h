// Requests and tokens a minute of each caller: two buckets that fill steadily and hold one minute's worth. A
// request is let in while something is left in both; tokens that it then uses beyond that are a debt which is
// filled up first. Thread-safe. Callers that have not been seen for so long that their buckets are full are
// forgotten.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.h"

namespace mlxs {

struct RateLimits {
  std::int64_t requests_per_minute = 0;  // 0: no limit
  std::int64_t tokens_per_minute = 0;    // of prompts and answers; 0: no limit

  bool any() const { return requests_per_minute > 0 || tokens_per_minute > 0; }
};

// What is left of one limit.
struct RateState {
  std::int64_t limit = 0;  // 0: there is none
  std::int64_t remaining = 0;
  double reset_s = 0;  // until it is full again
};

struct RateDecision {
  bool admitted = true;
  bool out_of_tokens = false;  // else of requests
  double retry_after_s = 0;    // not admitted: when it would be
  RateState requests, tokens;
};

class RateLimiter {
 public:
  explicit RateLimiter(const Clock& clock) : clock_(clock) {}

  // Counts the request if it is let in.
  RateDecision admit(std::string_view caller, const RateLimits& limits);
  // Tokens that a request of that caller has used.
  void charge(std::string_view caller, const RateLimits& limits, std::int64_t tokens);
  std::size_t callers() const;  // that are remembered

 private:
  struct Bucket {
    double level = 0;  // below zero: a debt
    TimePoint since{};
  };
  struct Buckets {
    Bucket requests, tokens;
  };
  Buckets& of(std::string_view caller, const RateLimits& limits, TimePoint now);
  void forget_full(TimePoint now);

  const Clock& clock_;
  mutable std::mutex mutex_;
  std::unordered_map<std::string, Buckets> buckets_;
  TimePoint swept_{};
};

}  // namespace mlxs
