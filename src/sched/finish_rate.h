// How fast requests end, measured in step time: what a refused client is told to wait. A value; never fails.
#pragma once

#include <algorithm>
#include <utility>

namespace mlxs {

class FinishRate {
 public:
  // A step took `seconds` and ended `finished` requests.
  void add(double seconds, int finished) {
    since_last_ += seconds;
    if (finished == 0) return;
    const double sample = std::exchange(since_last_, 0.0) / finished;
    average_ = average_ > 0 ? (1 - kWeight) * average_ + kWeight * sample : sample;
  }

  double average() const { return average_; }  // step time per request that ended; 0: none did yet

  // Until a place in a full queue is free: admissions follow from ends. At least a second while nothing has
  // ended yet.
  double seconds_to_next() const { return average_ > 0 ? average_ : std::max(1.0, since_last_); }

 private:
  static constexpr double kWeight = 0.1;  // of the newest sample in the moving average
  double since_last_ = 0, average_ = 0;
};

}  // namespace mlxs
