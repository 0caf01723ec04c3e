#include "telemetry/request_log.h"

#include <algorithm>
#include <ranges>

namespace mlxs {

double RequestReport::e2e_seconds() const {
  double seconds = end ? to_seconds(end->at - start.received) : 0.0;
  for (const RequestTimeline& choice : choices) seconds = std::max(seconds, choice.total_seconds);
  return seconds;
}

double RequestReport::deliver_seconds() const {
  if (choices.empty()) return 0.0;
  double last = 0;
  for (const RequestTimeline& choice : choices) last = std::max(last, choice.total_seconds);
  return e2e_seconds() - last;
}

void RequestTrace::expect_choice() {
  const std::lock_guard lock(mutex_);
  ++report_.choices_expected;
}

void RequestTrace::add(RequestTimeline timeline) {
  const std::lock_guard lock(mutex_);
  report_.choices.push_back(std::move(timeline));
}

void RequestTrace::end(const TraceEnd& end) {
  const std::lock_guard lock(mutex_);
  report_.end = end;
}

RequestReport RequestTrace::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

std::shared_ptr<RequestTrace> RequestLog::begin(TraceStart start) {
  auto trace = std::make_shared<RequestTrace>(std::move(start));
  std::shared_ptr<RequestTrace> oldest;  // freed without the lock
  const std::lock_guard lock(mutex_);
  if (keep_ == 0) return trace;
  if (traces_.size() == keep_) {
    oldest = std::move(traces_.front());
    traces_.pop_front();
  }
  traces_.push_back(trace);
  return trace;
}

std::shared_ptr<RequestTrace> RequestLog::find(std::string_view id) const {
  const std::lock_guard lock(mutex_);
  for (const auto& trace : std::views::reverse(traces_)) {
    if (trace->id() == id) return trace;
  }
  return nullptr;
}

std::vector<std::shared_ptr<RequestTrace>> RequestLog::latest(std::size_t most) const {
  const std::lock_guard lock(mutex_);
  const std::size_t count = std::min(most, traces_.size());
  return {traces_.rbegin(), traces_.rbegin() + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace mlxs
