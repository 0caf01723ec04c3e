// Time, injected: everything that decides by time takes a TimePoint or a Clock, so tests and the simulator
// own it. Steady (monotonic) unless a name says wall time.
#pragma once

#include <chrono>

namespace mlxs {

using TimePoint = std::chrono::steady_clock::time_point;
using Duration = std::chrono::steady_clock::duration;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
};

class SteadyClock final : public Clock {
 public:
  TimePoint now() const override { return std::chrono::steady_clock::now(); }
};

// A clock that tests and the simulator move by hand. Not thread-safe.
class ManualClock final : public Clock {
 public:
  TimePoint now() const override { return now_; }
  void advance(Duration by) { now_ += by; }

 private:
  TimePoint now_{};
};

inline double to_seconds(Duration d) { return std::chrono::duration<double>(d).count(); }
inline Duration from_seconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}
inline Duration from_ms(double ms) { return from_seconds(ms * 1e-3); }
inline double to_ms(Duration d) { return to_seconds(d) * 1e3; }

}  // namespace mlxs
