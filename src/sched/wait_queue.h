// The requests without pages: one FIFO a tier, preempted ones ahead of it, and ageing, which moves a request
// into the next better tier every interval. So a flood of any tier delays a request by at most three
// intervals plus what the best tier held by then. Refers to the Scheduler's entries; never fails.
#pragma once

#include <array>
#include <list>

#include "base/clock.h"
#include "sched/entry.h"

namespace mlxs {

class WaitQueue {
 public:
  explicit WaitQueue(Duration aging_interval) : interval_(aging_interval) {}

  // A new request goes to the end of its tier; a preempted one to the front, behind those admitted before it.
  void push(SchedEntry& entry, TimePoint since);
  void remove(SchedEntry& entry);
  void age(TimePoint now);
  SchedEntry* front() const;  // next to admit: the first that is not paused, best tier first; null if none
  std::size_t size() const;

 private:
  using Tier = std::list<SchedEntry*>;
  Tier::iterator position_for(const SchedEntry& entry);

  Duration interval_;
  std::array<Tier, 4> tiers_;
  TimePoint next_promotion_ = TimePoint::max();  // no later than the first promotion that is due
};

}  // namespace mlxs
