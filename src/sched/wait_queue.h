// The requests without pages: a queue a tier, preempted ones ahead in it, then the tenant that got the least
// service (FairShare), each tenant's requests in order. Ageing moves a request into the next better tier
// every interval, so that a flood of any tier delays a request by at most three intervals plus its tenant's
// turn. It overtakes only what asked for a better tier, or belongs to a tenant that got as much service: a
// flood that waits for long goes no faster for it. Refers to the Scheduler's entries; never fails.
#pragma once

#include <algorithm>
#include <array>
#include <list>
#include <map>
#include <span>
#include <vector>

#include "base/clock.h"
#include "sched/entry.h"
#include "sched/fair_share.h"

namespace mlxs {

// Where a request goes whose target is at risk. Not the best one: that stays with those who were given it.
inline constexpr int kRescueTier = 1;
inline constexpr int kWorstTier = 3;

class WaitQueue {
 public:
  explicit WaitQueue(Duration aging_interval) : interval_(aging_interval) {}

  // A new request goes to the end of its tenant's in its tier; a preempted one to the tier's front, behind
  // those admitted before it.
  void push(SchedEntry& entry, TimePoint since);
  void remove(SchedEntry& entry);
  // Moves what is due to better tiers. Returns what can no longer make its TTFT, still queued; valid until
  // the next call.
  std::span<SchedEntry* const> age(TimePoint now);
  void remind(const SchedEntry& entry) {
    next_due_ = std::min(next_due_, due(entry));
  }                           // its due times changed
  SchedEntry* front() const;  // next to admit: the first that is not paused, best tier first; null if none
  // At most `most` fresh requests of `first`'s tier, some of each tenant, in order; of tenants that have none
  // in a better tier. Without `first` and paused ones.
  void beside(const SchedEntry& first, std::size_t most, std::vector<SchedEntry*>& out) const;
  std::size_t size() const { return size_; }
  std::int64_t tokens() const { return tokens_; }     // that its requests have
  std::uint64_t rescued() const { return rescued_; }  // promotions because of a target at risk

  // Of a new request, the end of its tenant's in a tier.
  struct Place {
    int tier = 0, asked_tier = 0;
    TenantId tenant = 0;
  };
  // Those that would be admitted before it, as the counters stand. token_weight: service that a prompt token
  // costs.
  std::vector<const SchedEntry*> before(const Place& place, double token_weight) const;
  // Who gives up its place in a full queue to a new request: the newest of the worst tier of the tenant that
  // waits with most requests for its weight, if those of the new one's tenant are fewer, or else of its own
  // tenant if of a worse tier. Null: nobody, the new one has to go.
  SchedEntry* least_entitled(const Place& place, double weight) const;

  FairShare& share() { return share_; }
  const FairShare& share() const { return share_; }

 private:
  using List = std::list<SchedEntry*>;
  struct Tier {
    List preempted;
    std::map<TenantId, List> fresh;  // no empty ones
  };

  List& list_of(SchedEntry& entry);
  List::iterator position_for(const SchedEntry& entry, List& list) const;
  SchedEntry* least_served(const Tier& tier, int worst_asked) const;
  SchedEntry* newest_of_worst(TenantId tenant) const;
  void move_up(SchedEntry& entry, int from);
  void age_list(List& list, int tier, TimePoint now);
  static TimePoint due(const SchedEntry& entry);  // when age() has to look at it

  Duration interval_;
  std::array<Tier, kWorstTier + 1> tiers_;
  FairShare share_;
  std::size_t size_ = 0;
  std::int64_t tokens_ = 0;
  std::uint64_t pushed_ = 0;
  TimePoint next_due_ = TimePoint::max();       // no later than the first thing that age() has to do
  std::vector<SchedEntry*> hopeless_, moving_;  // of age()
  std::uint64_t rescued_ = 0;
};

}  // namespace mlxs
