#include "sim/latency_histogram.h"

#include <algorithm>
#include <cmath>

namespace mlxs {
namespace {

constexpr double kLowest = 1e-6, kGrowth = 1.02;

std::size_t bucket_of(double seconds, std::size_t count) {
  static const double per_log = 1 / std::log(kGrowth);
  const double bucket = std::log(std::max(seconds, kLowest) / kLowest) * per_log;
  return std::min(static_cast<std::size_t>(bucket), count - 1);
}

}  // namespace

void LatencyHistogram::add(double seconds) {
  if (seconds != last_) {  // all rows of a step took the same time: one logarithm a step
    last_ = seconds;
    last_bucket_ = bucket_of(seconds, counts_.size());
  }
  ++counts_[last_bucket_];
  ++total_;
  max_ = std::max(max_, seconds);
}

double LatencyHistogram::quantile(double q) const {
  const auto rank = static_cast<std::uint64_t>(std::ceil(q * static_cast<double>(total_)));
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    below += counts_[i];
    if (below >= rank && below > 0)
      return std::min(max_, kLowest * std::pow(kGrowth, static_cast<double>(i + 1)));
  }
  return max_;
}

std::vector<std::pair<double, double>> LatencyHistogram::cumulative() const {
  std::vector<std::pair<double, double>> points;
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] == 0) continue;
    below += counts_[i];
    points.emplace_back(std::min(max_, kLowest * std::pow(kGrowth, static_cast<double>(i + 1))),
                        static_cast<double>(below) / static_cast<double>(total_));
  }
  return points;
}

double LatencyHistogram::share_at_most(double seconds) const {
  if (total_ == 0) return 1;
  std::uint64_t below = 0;
  for (std::size_t i = 0; i <= bucket_of(seconds, counts_.size()); ++i) below += counts_[i];
  return static_cast<double>(below) / static_cast<double>(total_);
}

}  // namespace mlxs
