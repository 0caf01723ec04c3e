// The requests without pages: one FIFO a tier, and ageing, which moves a request to the end of the next
// better tier every interval. A flood of any tier therefore delays a request by at most three intervals plus
// the best tier's queue then. Refers to the Scheduler's entries; never fails.
#pragma once

#include <array>
#include <list>

#include "base/clock.h"
#include "sched/entry.h"

namespace mlxs {

class WaitQueue {
 public:
  explicit WaitQueue(Duration aging_interval) : interval_(aging_interval) {}

  void push_back(SchedEntry& entry, TimePoint since);   // a new request
  void push_front(SchedEntry& entry, TimePoint since);  // a preempted one, ahead of its tier
  void remove(SchedEntry& entry);
  void age(TimePoint now);
  SchedEntry* front() const;  // next to admit: the first that is not paused, best tier first; null if none
  std::size_t size() const;

 private:
  using Tier = std::list<SchedEntry*>;
  void wait_from(SchedEntry& entry, TimePoint since);

  Duration interval_;
  std::array<Tier, 4> tiers_;
  TimePoint next_promotion_ = TimePoint::max();  // no later than the first promotion that is due
};

}  // namespace mlxs
