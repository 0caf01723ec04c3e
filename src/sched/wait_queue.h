// The requests without pages: one FIFO a tier, preempted ones ahead of it, and ageing, which moves a request
// into the next better tier every interval. So a flood of any tier delays a request by at most three
// intervals plus what the best tier held by then. Refers to the Scheduler's entries; never fails.
#pragma once

#include <algorithm>
#include <array>
#include <list>
#include <span>
#include <vector>

#include "base/clock.h"
#include "sched/entry.h"

namespace mlxs {

// Where a request goes whose target is at risk. Not the best one: that stays with those who were given it.
inline constexpr int kRescueTier = 1;

class WaitQueue {
 public:
  explicit WaitQueue(Duration aging_interval) : interval_(aging_interval) {}

  // A new request goes to the end of its tier; a preempted one to the front, behind those admitted before it.
  void push(SchedEntry& entry, TimePoint since);
  void remove(SchedEntry& entry);
  // Moves what is due to better tiers. Returns what can no longer make its TTFT, still queued; valid until
  // the next call.
  std::span<SchedEntry* const> age(TimePoint now);
  void remind(const SchedEntry& entry) {
    next_due_ = std::min(next_due_, due(entry));
  }  // its due times changed
  // For every entry that would be admitted before a new one of `tier`, and then its count.
  template <class Visit>
  std::int32_t for_each_before(int tier, Visit visit) const {
    std::int32_t count = 0;
    for (int better = 0; better <= tier; ++better) {
      for (const SchedEntry* entry : tiers_[static_cast<std::size_t>(better)]) {
        if (entry->paused) continue;
        visit(*entry);
        ++count;
      }
    }
    return count;
  }
  SchedEntry* front() const;  // next to admit: the first that is not paused, best tier first; null if none
  std::size_t size() const;
  std::uint64_t rescued() const { return rescued_; }  // promotions because of a target at risk

 private:
  using Tier = std::list<SchedEntry*>;
  Tier::iterator position_for(const SchedEntry& entry);
  static TimePoint due(const SchedEntry& entry);  // when age() has to look at it

  Duration interval_;
  std::array<Tier, 4> tiers_;
  TimePoint next_due_ = TimePoint::max();  // no later than the first thing that age() has to do
  std::vector<SchedEntry*> hopeless_;
  std::uint64_t rescued_ = 0;
};

}  // namespace mlxs
