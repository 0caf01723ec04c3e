// Durations counted in buckets that grow by 2 %, from 1 µs to weeks: percentiles of any number of them in 11
// kB. A value; never fails.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace mlxs {

struct Percentiles {
  double p50 = 0, p95 = 0, p99 = 0, max = 0;  // seconds; within 2 %, max exact; 0 of nothing
};

class LatencyHistogram {
 public:
  void add(double seconds);
  double quantile(double q) const;  // q in (0, 1]
  Percentiles percentiles() const { return {quantile(0.50), quantile(0.95), quantile(0.99), max_}; }
  std::uint64_t count() const { return total_; }
  // (seconds, share of the durations that are at most that), one for each bucket that holds any.
  std::vector<std::pair<double, double>> cumulative() const;
  double share_at_most(double seconds) const;  // of the durations; 1 of nothing

 private:
  std::array<std::uint64_t, 1400> counts_{};
  std::uint64_t total_ = 0;
  double max_ = 0;
  double last_ = 0;  // the last duration added, and where
  std::size_t last_bucket_ = 0;
};

}  // namespace mlxs
