// Who got a place lately, and by what claim, for the records of those who waited meanwhile. A ring: what is
// older than its last entries is counted, not named. Engine thread; no clock of its own; never fails.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "base/clock.h"
#include "mlxs/timeline.h"
#include "sched/scheduler.h"

namespace mlxs {

class AdmissionHistory {
 public:
  static constexpr std::size_t kKept = 1024, kNamed = 8;

  // A request's place among the others when it was queued.
  struct Arrival {
    std::uint64_t number = 0, admissions_before = 0;
    int priority = 0;
  };
  Arrival arrive(Priority priority) {
    return {.number = ++arrivals_, .admissions_before = admissions_, .priority = static_cast<int>(priority)};
  }

  struct Admitted {
    RequestSeen who;
    TimePoint at{};
    Arrival arrival;
    AdmittedBy how{};
  };
  void add(Admitted admitted);

  // Those that got a place since `waiting` began to wait; moments count from `received`.
  WentFirst went_first(const Arrival& waiting, TimePoint received) const;

 private:
  std::uint64_t arrivals_ = 0, admissions_ = 0;
  std::deque<Admitted> latest_;  // oldest first
};

}  // namespace mlxs
