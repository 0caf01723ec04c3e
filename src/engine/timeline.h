// Keeps the time of one request: which part it is in, and the events that explain it. Fed with times, has no
// clock of its own. Made by the submitting thread, then used by the engine thread, and in the end by who owns
// the request then; lives in the Request.
// Never fails.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "mlxs/timeline.h"
#include "sched/step_plan.h"

namespace mlxs {

// For how long the queue's head has lacked what, over all time: a request reads it when it begins and when it
// ends to wait.
class QueueClock {
 public:
  // From now on: `blocked`. The past belongs to what was said before.
  void advance(TimePoint now, QueueBlock blocked);
  void advance(TimePoint now) { advance(now, blocked_); }
  Duration lacking(QueueBlock what) const { return total_[static_cast<std::size_t>(what)]; }

 private:
  std::array<Duration, 3> total_{};
  QueueBlock blocked_ = QueueBlock::kNothing;
  TimePoint since_{};
};

// The step that a request had a span in.
struct StepShare {
  std::uint64_t step = 0;
  TimePoint started{}, ended{};
  int prefill_tokens = 0, total_tokens = 0;
};

class TimelineRecorder {
 public:
  static constexpr std::size_t kMaxChunks = 64, kMaxPreemptions = 16, kMaxSeen = 8;

  explicit TimelineRecorder(TimePoint received) : received_(received), since_(received) {}

  // Submitting thread, in this order; tokenizing: of the time so far, what already went into that.
  void tokenizing(TimePoint now, Duration before);
  void compiling_grammar(TimePoint now) { enter(RequestPart::kGrammar, now); }
  void submitted(TimePoint now) { enter(RequestPart::kQueue, now); }

  // Engine thread.
  void queued(const QueueClock& clock, int running, int waiting, std::vector<RequestSeen> seen);
  void admitted(TimePoint now, const QueueClock& clock);
  void prefilled(const StepShare& step, int start, int tokens);
  void sampled(const StepShare& step);  // a token came out of this step
  void preempted(TimePoint now, RequestSeen for_whom, int lost_tokens);
  void paused(TimePoint now);
  void resumed(TimePoint now);
  void masked(Duration time) { mask_ += time; }
  void keep_generated(int tokens);  // those after them were not shown
  Duration mask_time() const { return mask_; }

  // Of waiting: what the queue's head lacked meanwhile. Once; admitted() does it too.
  void left_queue(const QueueClock& clock);
  bool waiting() const { return waiting_; }  // for its first admission
  void went_first(WentFirst others) { record_.went_first = std::move(others); }

  TimePoint received() const { return received_; }
  TimePoint first_token() const { return first_token_; }  // zero: none yet
  TimePoint last_token() const { return last_token_; }
  // The parts so far, if the last one ended at `now`.
  std::array<double, kRequestParts> part_seconds(TimePoint now) const;
  // The time in a part, whole ones only.
  double seconds_in(RequestPart part) const { return to_seconds(parts_[static_cast<std::size_t>(part)]); }

  // Ends the last part. Names, counts and the finish are the caller's to fill in.
  RequestTimeline finish(TimePoint now);

 private:
  void enter(RequestPart part, TimePoint now);
  double moment(TimePoint time) const { return to_seconds(time - received_); }

  TimePoint received_, since_;
  RequestPart part_ = RequestPart::kPrepare;
  std::array<Duration, kRequestParts> parts_{};
  Duration mask_{};
  bool recomputing_ = false;  // since a preemption, until the next token
  bool without_pages_ = false;
  bool waiting_ = true;             // for its first admission
  Duration no_slot_{}, no_page_{};  // first the clock's readings at the start, then the differences
  TimePoint first_token_{}, last_token_{};
  std::vector<double> gaps_;  // seconds between tokens
  RequestTimeline record_;    // filled as things happen
};

}  // namespace mlxs
