// Decides whether waiting requests may start now or are held for others to join. Opens at once for an urgent
// request, for one that is alone (fast path), for a full batch, and when the window since it closed has
// passed. The window follows the smoothed queue depth with hysteresis; the batch size shrinks while steps are
// slow and recovers. Differs from the GPU scheduler that its names come from: idle polls are no samples, the
// average is not restarted by a depth of zero, and what was degraded comes back. Pure; engine thread; never
// fails.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "mlxs/admission_window.h"

namespace mlxs {

// The window's length as a function of load.
class AdaptiveWindow {
 public:
  struct Transition {
    TimePoint at{};
    double window_ms = 0;
    std::string_view reason;  // "low load", "medium load", "high load"
  };
  static constexpr std::size_t kHistory = 100;

  explicit AdaptiveWindow(AdmissionWindowOptions::Adaptive options) : options_(options) {}

  double update(int queue_depth, TimePoint now);  // the window from now on, in ms
  double window_ms() const;
  double ema() const { return ema_; }
  std::uint64_t updates() const { return updates_; }
  std::uint64_t transitions() const { return transitions_; }
  const std::deque<Transition>& history() const { return history_; }

 private:
  enum class Level : std::uint8_t { kLow, kMedium, kHigh };
  double ms(Level level) const;
  Level target() const;

  AdmissionWindowOptions::Adaptive options_;
  Level level_ = Level::kMedium, pending_ = Level::kMedium;
  int agreeing_ = 0;
  double ema_ = 0;
  std::uint64_t updates_ = 0, transitions_ = 0;
  std::deque<Transition> history_;
};

// The batch size as a function of how long steps take.
class BatchSize {
 public:
  explicit BatchSize(const AdmissionWindowOptions& options);

  void add(double step_ms);
  int size() const { return size_; }
  double window_factor() const { return window_factor_; }  // 1, or less once the batch size is at its floor
  std::uint64_t degradations() const { return degradations_; }
  std::uint64_t adjustments() const { return adjustments_; }
  double p50_ms() const { return p50_ms_; }
  double p95_ms() const { return p95_ms_; }
  double p99_ms() const { return p99_ms_; }
  double min_ms() const { return min_ms_; }
  double max_ms() const { return max_ms_; }
  double mean_ms() const { return mean_ms_; }
  double ema_p99_ms() const { return ema_p99_ms_; }
  std::size_t samples() const { return samples_.size(); }
  std::uint64_t steps() const { return steps_; }
  std::uint64_t checks() const { return checks_; }

 private:
  void measure();
  double percentile(double share);  // of sorted_, partly sorted
  void tune();
  void degrade_or_recover();

  AdmissionWindowOptions options_;
  int size_;
  double window_factor_ = 1;
  std::vector<double> samples_, sorted_;  // ring; scratch
  std::size_t next_ = 0;
  std::uint64_t steps_ = 0, checks_ = 0, degradations_ = 0, adjustments_ = 0;
  int healthy_ = 0;
  double p50_ms_ = 0, p95_ms_ = 0, p99_ms_ = 0, ema_p99_ms_ = 0;
  double min_ms_ = 0, max_ms_ = 0, mean_ms_ = 0;
};

class AdmissionWindow {
 public:
  explicit AdmissionWindow(const AdmissionWindowOptions& options)
      : options_(options), adaptive_(options.adaptive), batch_(options) {}

  // May `waiting` (≥ 1) requests start? running: requests that run beside them; arrived: the first of those
  // that wait, else now: what it waited for the step before to end counts, or it would lose another step.
  // While not: ask again at opens_at().
  bool open(TimePoint now, int waiting, int running, bool urgent, std::optional<TimePoint> arrived = {});
  TimePoint opens_at() const { return opens_at_; }
  void step_took(double seconds) {
    if (options_.enabled) batch_.add(seconds * 1e3);
  }
  AdmissionWindowStats stats() const;

 private:
  double window_ms() const;

  AdmissionWindowOptions options_;
  AdaptiveWindow adaptive_;
  BatchSize batch_;
  bool holding_ = false;
  TimePoint opens_at_{}, asked_{};
  std::uint64_t fast_path_ = 0, normal_ = 0;
};

}  // namespace mlxs
