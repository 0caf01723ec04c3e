// How often something happened in the last seconds: a ring of quarter seconds that any thread adds to and any
// thread reads, without a lock. Old quarters are told by their time, so a rate falls to 0 by itself when
// nothing happens any more. An addition that meets a reader may show in the next reading only.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "base/clock.h"

namespace mlxs {

class SlidingRate {
 public:
  static constexpr std::array<int, 3> kWindowSeconds{5, 30, 60};

  void add(TimePoint at, std::uint32_t count = 1) {
    const std::uint32_t now = quarter(at);
    std::atomic<std::uint64_t>& slot = slots_[now % kSlots];
    std::uint64_t seen = slot.load(std::memory_order_relaxed);
    std::uint64_t next = 0;
    do {
      const std::uint64_t before = time_of(seen) == now ? seen & kCount : 0;
      next = (std::uint64_t{now} << 32) | (before + count);
    } while (!slot.compare_exchange_weak(seen, next, std::memory_order_relaxed));
  }

  // What the last `seconds` (at most 60) saw, per second since the first of it; 0: nothing.
  double per_second(TimePoint at, int seconds) const {
    const std::uint32_t now = quarter(at);
    const auto quarters = static_cast<std::uint32_t>(seconds * kPerSecond);
    std::uint64_t sum = 0;
    std::uint32_t oldest = 0;  // quarters ago
    for (const std::atomic<std::uint64_t>& slot : slots_) {
      const std::uint64_t seen = slot.load(std::memory_order_relaxed);
      const std::uint32_t ago = now - time_of(seen);
      if ((seen & kCount) == 0 || ago >= quarters) continue;
      sum += seen & kCount;
      oldest = ago > oldest ? ago : oldest;
    }
    if (sum == 0) return 0;
    const TimePoint first{std::chrono::milliseconds(kQuarterMs) * (now - oldest)};
    const double elapsed = to_seconds(at - first);
    return elapsed > 1e-3 ? static_cast<double>(sum) / elapsed : 0.0;
  }

 private:
  static constexpr int kPerSecond = 4, kQuarterMs = 1000 / kPerSecond;
  static constexpr std::uint32_t kSlots = 256;  // more than 60 s
  static constexpr std::uint64_t kCount = 0xffffffffU;

  static std::uint32_t quarter(TimePoint at) {
    return static_cast<std::uint32_t>(at.time_since_epoch() / std::chrono::milliseconds(kQuarterMs));
  }
  static std::uint32_t time_of(std::uint64_t slot) { return static_cast<std::uint32_t>(slot >> 32); }

  std::array<std::atomic<std::uint64_t>, kSlots> slots_{};
};

// What a model did in each of the windows: tokens generated, requests ended.
struct ThroughputNow {
  std::string model;
  std::array<double, SlidingRate::kWindowSeconds.size()> tokens_per_second{}, requests_per_second{};
};

}  // namespace mlxs
