#include "telemetry/stall_watch.h"

#include <algorithm>
#include <utility>

namespace mlxs {
namespace {

constexpr int kLooksALimit = 8;
constexpr Duration kLongestPause = std::chrono::seconds(1);

}  // namespace

std::optional<Duration> StallDetector::tick(TimePoint now, const StallProbe& probe) {
  if (!since_ || !probe.busy || probe.steps != steps_) {
    since_ = now;
    steps_ = probe.steps;
    told_ = false;
    return std::nullopt;
  }
  if (told_ || now - *since_ <= limit_) return std::nullopt;
  told_ = true;
  return now - *since_;
}

StallWatch::StallWatch(Duration limit, std::function<StallProbe()> probe,
                       std::function<void(double)> on_stall)
    : probe_(std::move(probe)), on_stall_(std::move(on_stall)), thread_([this, limit] { run(limit); }) {}

StallWatch::~StallWatch() {
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  ending_.notify_all();
  thread_.join();
}

void StallWatch::run(Duration limit) {
  StallDetector detector(limit);
  const Duration pause = std::min(limit / kLooksALimit, kLongestPause);
  std::unique_lock lock(mutex_);
  while (!ending_.wait_for(lock, pause, [this] { return end_; })) {
    lock.unlock();
    if (const auto stood = detector.tick(std::chrono::steady_clock::now(), probe_()))
      on_stall_(to_seconds(*stood));
    lock.lock();
  }
}

}  // namespace mlxs
