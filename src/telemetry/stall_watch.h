// Notices that steps stand still while there is work: no step is completed for some time. Asks, from a thread
// of its own, a few times in that time; tells once for each stall. The detector is pure.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

#include "base/clock.h"

namespace mlxs {

struct StallProbe {
  std::uint64_t steps = 0;  // completed so far
  bool busy = false;        // requests are there, or a step runs
};

class StallDetector {
 public:
  explicit StallDetector(Duration limit) : limit_(limit) {}
  // For how long it has stood still, when that first exceeds the limit; nullopt otherwise.
  std::optional<Duration> tick(TimePoint now, const StallProbe& probe);

 private:
  Duration limit_;
  std::uint64_t steps_ = 0;
  std::optional<TimePoint> since_;  // when there was progress, or nothing to do, for the last time
  bool told_ = false;
};

class StallWatch {
 public:
  // probe and on_stall are called on the watch's thread, until it is destroyed; they must not throw.
  StallWatch(Duration limit, std::function<StallProbe()> probe, std::function<void(double seconds)> on_stall);
  ~StallWatch();
  StallWatch(const StallWatch&) = delete;
  StallWatch& operator=(const StallWatch&) = delete;

 private:
  void run(Duration limit);

  const std::function<StallProbe()> probe_;
  const std::function<void(double)> on_stall_;
  std::mutex mutex_;
  std::condition_variable ending_;
  bool end_ = false;
  std::thread thread_;
};

}  // namespace mlxs
