#include "engine/timeline.h"

#include <algorithm>
#include <utility>

#include "base/percentile.h"

namespace mlxs {

void QueueClock::advance(TimePoint now, QueueBlock blocked) {
  if (since_ != TimePoint{}) total_[static_cast<std::size_t>(blocked_)] += now - since_;
  since_ = now;
  blocked_ = blocked;
}

void TimelineRecorder::enter(RequestPart part, TimePoint now) {
  parts_[static_cast<std::size_t>(part_)] += now - since_;
  part_ = part;
  since_ = now;
}

void TimelineRecorder::tokenizing(TimePoint now, Duration before) {
  enter(RequestPart::kTokenize, now);
  parts_[static_cast<std::size_t>(RequestPart::kPrepare)] -= before;
  parts_[static_cast<std::size_t>(RequestPart::kTokenize)] += before;
}

void TimelineRecorder::queued(const QueueClock& clock, int running, int waiting,
                              std::vector<RequestSeen> seen) {
  record_.running_ahead = running;
  record_.waiting_ahead = waiting;
  record_.seen_running = std::move(seen);
  no_slot_ = clock.lacking(QueueBlock::kSlots);
  no_page_ = clock.lacking(QueueBlock::kPages);
}

void TimelineRecorder::admitted(TimePoint now, const QueueClock& clock) {
  without_pages_ = false;
  enter(RequestPart::kBudget, now);
  left_queue(clock);
}

void TimelineRecorder::left_queue(const QueueClock& clock) {
  if (!std::exchange(waiting_, false)) return;
  record_.no_slot_seconds = to_seconds(clock.lacking(QueueBlock::kSlots) - no_slot_);
  record_.no_page_seconds = to_seconds(clock.lacking(QueueBlock::kPages) - no_page_);
}

void TimelineRecorder::prefilled(const StepShare& step, int start, int tokens) {
  enter(recomputing_ ? RequestPart::kRecompute : RequestPart::kPrefill, step.started);
  enter(RequestPart::kBudget, step.ended);  // until the next chunk, or the token that sampled() tells of
  if (recomputing_) return;
  if (record_.chunks.size() == kMaxChunks) {
    ++record_.chunks_omitted;
    return;
  }
  record_.chunks.push_back({.at_seconds = moment(step.started),
                            .seconds = to_seconds(step.ended - step.started),
                            .step = step.step,
                            .start = start,
                            .tokens = tokens,
                            .other_tokens = step.total_tokens - tokens});
}

void TimelineRecorder::sampled(const StepShare& step) {
  const TimePoint now = step.ended;
  // It may have been paused while the step was under way.
  if (part_ != RequestPart::kDecode && part_ != RequestPart::kPaused) enter(RequestPart::kDecode, now);
  recomputing_ = false;
  ++record_.generated_tokens;
  if (first_token_ == TimePoint{}) {
    first_token_ = last_token_ = now;
    return;
  }
  const double gap = to_seconds(now - std::exchange(last_token_, now));
  gaps_.push_back(gap);
  if (gap <= record_.itl_max_seconds) return;
  record_.itl_max_seconds = gap;
  record_.slowest_token = record_.generated_tokens;
  record_.slowest_prefill_tokens = step.prefill_tokens;
}

void TimelineRecorder::keep_generated(int tokens) {
  if (tokens >= record_.generated_tokens) return;
  record_.generated_tokens = tokens;
  for (; static_cast<int>(gaps_.size()) >= std::max(tokens, 1); gaps_.pop_back()) {
    last_token_ -= from_seconds(gaps_.back());
  }
}

void TimelineRecorder::preempted(TimePoint now, RequestSeen for_whom, int lost_tokens) {
  recomputing_ = without_pages_ = true;
  if (part_ != RequestPart::kPaused) enter(RequestPart::kPreempted, now);
  if (record_.preemptions.size() == kMaxPreemptions) {
    ++record_.preemptions_omitted;
    return;
  }
  record_.preemptions.push_back(
      {.at_seconds = moment(now), .for_whom = std::move(for_whom), .lost_tokens = lost_tokens});
}

void TimelineRecorder::paused(TimePoint now) {
  enter(RequestPart::kPaused, now);
  ++record_.pauses;
}

void TimelineRecorder::resumed(TimePoint now) {
  if (part_ != RequestPart::kPaused) return;
  enter(without_pages_ ? RequestPart::kPreempted : RequestPart::kDecode, now);
}

std::array<double, kRequestParts> TimelineRecorder::part_seconds(TimePoint now) const {
  std::array<double, kRequestParts> seconds{};
  std::ranges::transform(parts_, seconds.begin(), to_seconds);
  seconds[static_cast<std::size_t>(part_)] += to_seconds(now - since_);
  return seconds;
}

RequestTimeline TimelineRecorder::finish(TimePoint now) {
  enter(part_, now);
  if (first_token_ != TimePoint{}) record_.ttft_seconds = moment(first_token_);
  record_.total_seconds = moment(now);
  record_.mask_seconds = to_seconds(mask_);
  std::ranges::transform(parts_, record_.parts.begin(), to_seconds);
  record_.itl_p50_seconds = percentile(gaps_, 50);
  record_.itl_p95_seconds = percentile(gaps_, 95);
  record_.itl_p99_seconds = percentile(gaps_, 99);
  return std::move(record_);
}

}  // namespace mlxs
