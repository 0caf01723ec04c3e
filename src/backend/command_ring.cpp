#include "backend/command_ring.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "mlxs/error.h"

namespace mlxs {

CommandRing::CommandRing(const MetalOptimizations::CommandBufferRing& options)
    : options_(options), taken_(static_cast<std::size_t>(options.ring_size), false) {}

int CommandRing::acquire() {
  std::unique_lock lock(mutex_);
  const auto room = [&] { return in_flight_ < size(); };
  if (!room()) {
    const auto begin = std::chrono::steady_clock::now();
    if (options_.timeout_ms == 0) {
      freed_.wait(lock, room);
    } else {
      freed_.wait_for(lock, std::chrono::milliseconds(options_.timeout_ms), room);
    }
    const double waited_us =
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
    if (options_.track_statistics) {
      ++stats_.wait_events;
      wait_us_ += waited_us;
      stats_.max_wait_time_us = std::max(stats_.max_wait_time_us, waited_us);
      if (!room()) ++stats_.timeout_events;
    }
    if (options_.log_wait_events) log::info("command ring: waited {:.0f} us for a place", waited_us);
    if (!room()) {
      throw Error(
          ErrorCode::kTimeout,
          fmt::format("all {} places of the command ring were taken for {} ms", size(), options_.timeout_ms),
          "raise metal_optimizations.command_buffer_ring.timeout_ms");
    }
  }
  while (taken_[static_cast<std::size_t>(next_)]) next_ = (next_ + 1) % size();
  const int place = next_;
  taken_[static_cast<std::size_t>(place)] = true;
  ++in_flight_;
  next_ = (next_ + 1) % size();
  if (options_.track_statistics) {
    ++stats_.total_acquired;
    stats_.rotations += next_ == 0;
  }
  return place;
}

void CommandRing::release(int place) {
  {
    const std::lock_guard lock(mutex_);
    if (place < 0 || place >= size() || !taken_[static_cast<std::size_t>(place)]) return;
    taken_[static_cast<std::size_t>(place)] = false;
    --in_flight_;
    if (options_.track_statistics) ++stats_.total_released;
  }
  freed_.notify_all();
}

void CommandRing::wait_all() {
  std::unique_lock lock(mutex_);
  freed_.wait(lock, [&] { return in_flight_ == 0; });
}

CommandBufferRingStats CommandRing::stats() const {
  const std::lock_guard lock(mutex_);
  CommandBufferRingStats now = stats_;
  now.enabled = true;
  now.ring_size = size();
  now.in_flight_count = in_flight_;
  now.available_count = now.ring_size - in_flight_;
  if (now.wait_events > 0) now.avg_wait_time_us = wait_us_ / static_cast<double>(now.wait_events);
  return now;
}

void CommandRing::reset_stats() {
  const std::lock_guard lock(mutex_);
  stats_ = {};
  wait_us_ = 0;
}

}  // namespace mlxs
