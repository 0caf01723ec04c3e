#include "telemetry/request_log.h"

#include <algorithm>
#include <ranges>
#include <utility>

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

bool RequestReport::failed() const {
  constexpr int kFirstFailure = 400;
  return (end && end->status >= kFirstFailure) ||
         std::ranges::any_of(choices, [](const RequestTimeline& c) { return c.finish == "error"; });
}

bool RequestReport::missed_target() const {
  const RequestFacts& asked = start.facts;
  return std::ranges::any_of(choices, [&asked](const RequestTimeline& c) {
    if (c.generated_tokens == 0) return asked.slo_ttft_ms > 0 && c.total_seconds * 1e3 > asked.slo_ttft_ms;
    if (asked.slo_ttft_ms > 0 && c.ttft_seconds * 1e3 > asked.slo_ttft_ms) return true;
    const double decoding = (c.total_seconds - c.ttft_seconds) * 1e3;
    return asked.slo_tpot_ms > 0 && c.generated_tokens > 1 &&
           decoding / (c.generated_tokens - 1) > asked.slo_tpot_ms;
  });
}

bool RequestTrace::completes() { return listener_ && report_.complete() && !std::exchange(told_, true); }

void RequestTrace::tell() { listener_->on_request_done(shared_from_this()); }

void RequestTrace::describe(TraceStart start) {
  const std::lock_guard lock(mutex_);
  TraceStart& own = report_.start;  // id and context stay where readers without the lock look
  own.method = std::move(start.method);
  own.path = std::move(start.path);
  own.peer = std::move(start.peer);
  own.tenant = std::move(start.tenant);
  own.model = std::move(start.model);
  own.metadata = std::move(start.metadata);
  own.received = start.received;
  own.received_unix_ns = start.received_unix_ns;
  own.facts = std::move(start.facts);
  described_ = true;
}

bool RequestTrace::described() const {
  const std::lock_guard lock(mutex_);
  return described_;
}

void RequestTrace::expect_choice() {
  const std::lock_guard lock(mutex_);
  ++report_.choices_expected;
}

void RequestTrace::add(RequestTimeline timeline, PromptChoices* prompt) {
  bool done = false;
  {
    const std::lock_guard lock(mutex_);
    if (prompt != nullptr && listener_) {
      prompt->longest_tokens = std::max(prompt->longest_tokens, timeline.generated_tokens);
      listener_->on_choice_ended(timeline, --prompt->open == 0 ? prompt : nullptr);
    }
    report_.choices.push_back(std::move(timeline));
    done = completes();
  }
  if (done) tell();
}

void RequestTrace::end(const TraceEnd& end) {
  bool done = false;
  {
    const std::lock_guard lock(mutex_);
    report_.end = end;
    done = completes();
  }
  if (done) tell();
}

RequestReport RequestTrace::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

std::shared_ptr<RequestTrace> RequestLog::open(TraceStart start) const {
  return std::make_shared<RequestTrace>(std::move(start), listener_);
}

std::shared_ptr<RequestTrace> RequestLog::begin(TraceStart start) {
  auto trace = open(std::move(start));
  keep(trace);
  return trace;
}

void RequestLog::keep(std::shared_ptr<RequestTrace> trace) {
  std::shared_ptr<RequestTrace> oldest;  // freed without the lock
  const std::lock_guard lock(mutex_);
  if (keep_ == 0) return;
  if (traces_.size() == keep_) {
    oldest = std::move(traces_.front());
    traces_.pop_front();
  }
  traces_.push_back(std::move(trace));
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
