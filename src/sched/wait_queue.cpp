// Tier queues; age() looks at the entries only when something is due.
#include "sched/wait_queue.h"

#include <algorithm>

namespace mlxs {

void WaitQueue::push(SchedEntry& entry, TimePoint since) {
  entry.place = tiers_[static_cast<std::size_t>(entry.tier)].insert(position_for(entry), &entry);
  entry.promote_at = since + interval_;
  next_due_ = std::min(next_due_, due(entry));
}

WaitQueue::Tier::iterator WaitQueue::position_for(const SchedEntry& entry) {
  Tier& tier = tiers_[static_cast<std::size_t>(entry.tier)];
  if (!entry.preempted) return tier.end();
  return std::ranges::find_if(
      tier, [&](const SchedEntry* other) { return !other->preempted || other->admission > entry.admission; });
}

void WaitQueue::remove(SchedEntry& entry) { tiers_[static_cast<std::size_t>(entry.tier)].erase(entry.place); }

std::span<SchedEntry* const> WaitQueue::age(TimePoint now) {
  hopeless_.clear();
  if (now < next_due_) return hopeless_;
  next_due_ = TimePoint::max();
  for (std::size_t from = 0; from < tiers_.size(); ++from) {
    for (auto next = tiers_[from].begin(); next != tiers_[from].end();) {
      SchedEntry& entry = **next++;
      for (; entry.tier > 0 && entry.promote_at <= now; entry.promote_at += interval_) --entry.tier;
      if (entry.risk_at <= now) {
        entry.risk_at = TimePoint::max();
        if (entry.tier > kRescueTier) {
          entry.tier = kRescueTier;
          ++rescued_;
        }
      }
      if (const auto to = static_cast<std::size_t>(entry.tier); to != from) {
        tiers_[to].splice(position_for(entry), tiers_[from], entry.place);
      }
      if (entry.hopeless_at <= now) hopeless_.push_back(&entry);
      next_due_ = std::min(next_due_, due(entry));
    }
  }
  return hopeless_;
}

TimePoint WaitQueue::due(const SchedEntry& entry) {
  const TimePoint target = std::min(entry.risk_at, entry.hopeless_at);
  return entry.tier > 0 ? std::min(target, entry.promote_at) : target;
}

SchedEntry* WaitQueue::front() const {
  for (const Tier& tier : tiers_) {
    for (SchedEntry* entry : tier) {
      if (!entry->paused) return entry;
    }
  }
  return nullptr;
}

std::size_t WaitQueue::size() const {
  std::size_t count = 0;
  for (const Tier& tier : tiers_) count += tier.size();
  return count;
}

}  // namespace mlxs
