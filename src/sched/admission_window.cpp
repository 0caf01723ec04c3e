#include "sched/admission_window.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mlxs {
namespace {

constexpr std::size_t kSamples = 1000;
constexpr std::size_t kLeastSamples = 100, kLeastTuningSamples = 10;
constexpr std::uint64_t kCheckEvery = 10;  // steps: a percentile costs some microseconds
constexpr int kHealthyChecks = 10;         // in a row before a degradation is taken back by one step
constexpr double kTolerance = 0.2;         // of the target P99
constexpr double kEmergency = 2;           // times the target P99
constexpr double kLeastFactor = 0.5;
constexpr double kNear = 0.1;  // an average comes down to a steady depth and never reaches it

}  // namespace

double AdaptiveWindow::ms(Level level) const {
  switch (level) {
    case Level::kLow:
      return options_.low_ms;
    case Level::kMedium:
      return options_.medium_ms;
    case Level::kHigh:
      return options_.high_ms;
  }
  return options_.medium_ms;
}

double AdaptiveWindow::window_ms() const { return ms(level_); }

// Between medium and high load what holds stays, so that a load at the border does not move the window.
AdaptiveWindow::Level AdaptiveWindow::target() const {
  if (ema_ <= options_.low_threshold + kNear) return Level::kLow;
  if (ema_ <= options_.medium_threshold) return Level::kMedium;
  if (ema_ >= options_.high_threshold) return Level::kHigh;
  return std::max(level_, Level::kMedium);
}

double AdaptiveWindow::update(int queue_depth, TimePoint now) {
  ema_ = updates_ == 0 ? queue_depth : options_.ema_alpha * queue_depth + (1 - options_.ema_alpha) * ema_;
  ++updates_;
  const Level target = this->target();
  if (target == level_) {
    agreeing_ = 0;
    return window_ms();
  }
  agreeing_ = target == pending_ ? agreeing_ + 1 : 1;
  pending_ = target;
  if (agreeing_ < options_.hysteresis) return window_ms();
  agreeing_ = 0;
  level_ = target;
  ++transitions_;
  static constexpr std::string_view kReasons[] = {"low load", "medium load", "high load"};
  history_.push_back({now, window_ms(), kReasons[static_cast<std::size_t>(target)]});
  if (history_.size() > kHistory) history_.pop_front();
  return window_ms();
}

BatchSize::BatchSize(const AdmissionWindowOptions& options) : options_(options), size_(options.batch_size) {
  if (!options.auto_tune.enabled) return;
  size_ = std::clamp(size_, options.auto_tune.min_batch, options.auto_tune.max_batch);
}

void BatchSize::add(double step_ms) {
  if (!(step_ms > 0) || !std::isfinite(step_ms)) return;
  if (samples_.size() < kSamples) {
    samples_.push_back(step_ms);
  } else {
    samples_[next_] = step_ms;
    next_ = (next_ + 1) % kSamples;
  }
  ++steps_;
  const AdmissionWindowOptions::AutoTune& tuning = options_.auto_tune;
  if (tuning.enabled) {
    if (samples_.size() >= kLeastTuningSamples && steps_ % static_cast<std::uint64_t>(tuning.interval) == 0)
      tune();
  } else if (samples_.size() >= kLeastSamples && steps_ % kCheckEvery == 0) {
    degrade_or_recover();
  }
}

double BatchSize::percentile(double share) {
  const auto rank = static_cast<std::ptrdiff_t>(share * static_cast<double>(sorted_.size() - 1));
  std::nth_element(sorted_.begin(), sorted_.begin() + rank, sorted_.end());
  return sorted_[static_cast<std::size_t>(rank)];
}

void BatchSize::measure() {
  ++checks_;
  sorted_ = samples_;
  p99_ms_ = percentile(0.99);
  p95_ms_ = percentile(0.95);
  p50_ms_ = percentile(0.5);
  const auto [least, most] = std::ranges::minmax(samples_);
  min_ms_ = least;
  max_ms_ = most;
  mean_ms_ = std::accumulate(samples_.begin(), samples_.end(), 0.0) / static_cast<double>(samples_.size());
  const double alpha = options_.auto_tune.ema_alpha;
  ema_p99_ms_ = ema_p99_ms_ == 0 ? p99_ms_ : alpha * p99_ms_ + (1 - alpha) * ema_p99_ms_;
}

void BatchSize::tune() {
  measure();
  const AdmissionWindowOptions::AutoTune& tuning = options_.auto_tune;
  const double target = options_.p99_threshold_ms;
  int wanted = size_;
  if (p99_ms_ > kEmergency * target) {
    wanted = tuning.min_batch;
    if (wanted != size_) ++degradations_;
  } else if (ema_p99_ms_ > (1 + kTolerance) * target) {
    --wanted;
  } else if (ema_p99_ms_ < (1 - kTolerance) * target) {
    ++wanted;
  }
  wanted = std::clamp(wanted, tuning.min_batch, tuning.max_batch);
  if (wanted == size_) return;
  size_ = wanted;
  ++adjustments_;
}

// Too slow: the batch size is halved down to one, then the window. Healthy for long: back, in the opposite
// order.
void BatchSize::degrade_or_recover() {
  measure();
  if (p99_ms_ > options_.p99_threshold_ms) {
    healthy_ = 0;
    if (size_ > 1) {
      size_ /= 2;
    } else if (window_factor_ > kLeastFactor) {
      window_factor_ /= 2;
    } else {
      return;
    }
    ++degradations_;
    samples_.clear();  // what comes from here on shows whether it helped
    next_ = 0;
    return;
  }
  if (++healthy_ < kHealthyChecks) return;
  healthy_ = 0;
  if (window_factor_ < 1) {
    window_factor_ = 1;
  } else if (size_ < options_.batch_size) {
    size_ = std::min(options_.batch_size, size_ * 2);
  } else {
    return;
  }
  ++adjustments_;
}

double AdmissionWindow::window_ms() const {
  const double ms = options_.adaptive.enabled ? adaptive_.window_ms() : options_.window_ms;
  return ms * batch_.window_factor();
}

bool AdmissionWindow::open(TimePoint now, int waiting, int running, bool urgent,
                           std::optional<TimePoint> arrived) {
  if (!options_.enabled) return true;
  asked_ = now;
  const bool alone = !holding_ && waiting == 1 && running == 0;
  if (!holding_) {
    if (options_.adaptive.enabled) adaptive_.update(waiting, now);
    opens_at_ = arrived.value_or(now) + from_ms(window_ms());
    holding_ = true;
  }
  const bool fast = options_.fast_path && alone;
  if (!fast && !urgent && waiting < batch_.size() && now < opens_at_) return false;
  holding_ = false;
  ++(fast ? fast_path_ : normal_);
  return true;
}

AdmissionWindowStats AdmissionWindow::stats() const {
  AdmissionWindowStats stats{.enabled = options_.enabled,
                             .adaptive = options_.adaptive.enabled,
                             .fast_path_enabled = options_.fast_path,
                             .auto_tune = options_.auto_tune.enabled,
                             .fast_path = fast_path_,
                             .normal = normal_,
                             .degradation_events = batch_.degradations(),
                             .adjustments = batch_.adjustments(),
                             .updates = adaptive_.updates(),
                             .transitions = adaptive_.transitions(),
                             .batch_size = batch_.size(),
                             .window_ms = window_ms(),
                             .ema_queue_depth = adaptive_.ema(),
                             .ema_p99_ms = batch_.ema_p99_ms(),
                             .p50_ms = batch_.p50_ms(),
                             .p95_ms = batch_.p95_ms(),
                             .p99_ms = batch_.p99_ms(),
                             .min_ms = batch_.min_ms(),
                             .max_ms = batch_.max_ms(),
                             .mean_ms = batch_.mean_ms(),
                             .samples = batch_.samples(),
                             .steps = batch_.steps(),
                             .checks = batch_.checks()};
  auto out = stats.recent_transitions.begin();
  for (auto at = adaptive_.history().rbegin(); at != adaptive_.history().rend(); ++at) {
    if (out == stats.recent_transitions.end()) break;
    *out++ = {to_seconds(asked_ - at->at), at->window_ms, at->reason};
  }
  return stats;
}

}  // namespace mlxs
