// Tier queues; age() looks at the entries only when something is due.
#include "sched/wait_queue.h"

#include <limits>
#include <utility>

namespace mlxs {

WaitQueue::List& WaitQueue::list_of(SchedEntry& entry) {
  Tier& tier = tiers_[static_cast<std::size_t>(entry.tier)];
  return entry.preempted ? tier.preempted : tier.fresh[entry.tenant];
}

WaitQueue::List::iterator WaitQueue::position_for(const SchedEntry& entry, List& list) const {
  if (!entry.preempted) return list.end();
  return std::ranges::find_if(list,
                              [&](const SchedEntry* other) { return other->admission > entry.admission; });
}

void WaitQueue::push(SchedEntry& entry, TimePoint since) {
  List& list = list_of(entry);
  entry.place = list.insert(position_for(entry, list), &entry);
  entry.queue_order = ++pushed_;
  entry.promote_at = since + interval_;
  share_.arrive(entry.tenant, entry.tenant_weight);
  ++size_;
  next_due_ = std::min(next_due_, due(entry));
}

void WaitQueue::remove(SchedEntry& entry) {
  List& list = list_of(entry);
  list.erase(entry.place);
  if (list.empty() && !entry.preempted) {
    tiers_[static_cast<std::size_t>(entry.tier)].fresh.erase(entry.tenant);
  }
  share_.leave(entry.tenant);
  --size_;
}

std::span<SchedEntry* const> WaitQueue::age(TimePoint now) {
  hopeless_.clear();
  if (now < next_due_) return hopeless_;
  next_due_ = TimePoint::max();
  for (int tier = 0; tier < static_cast<int>(tiers_.size()); ++tier) {
    moving_.clear();
    Tier& from = tiers_[static_cast<std::size_t>(tier)];
    age_list(from.preempted, tier, now);
    for (auto& [tenant, list] : from.fresh) age_list(list, tier, now);
    for (SchedEntry* entry : moving_) move_up(*entry, tier);
  }
  return hopeless_;
}

void WaitQueue::age_list(List& list, int tier, TimePoint now) {
  for (SchedEntry* entry : list) {
    for (; entry->tier > 0 && entry->promote_at <= now; entry->promote_at += interval_) --entry->tier;
    if (entry->risk_at <= now) {
      entry->risk_at = TimePoint::max();
      if (entry->tier > kRescueTier) {
        entry->tier = kRescueTier;
        ++rescued_;
      }
    }
    if (entry->tier != tier) moving_.push_back(entry);
    if (entry->hopeless_at <= now) hopeless_.push_back(entry);
    next_due_ = std::min(next_due_, due(*entry));
  }
}

// Its tier is the new one already.
void WaitQueue::move_up(SchedEntry& entry, int from) {
  const int to = std::exchange(entry.tier, from);
  List& old_list = list_of(entry);
  entry.tier = to;
  List& new_list = list_of(entry);
  new_list.splice(position_for(entry, new_list), old_list, entry.place);
  if (old_list.empty() && !entry.preempted) {
    tiers_[static_cast<std::size_t>(from)].fresh.erase(entry.tenant);
  }
}

TimePoint WaitQueue::due(const SchedEntry& entry) {
  const TimePoint target = std::min(entry.risk_at, entry.hopeless_at);
  return entry.tier > 0 ? std::min(target, entry.promote_at) : target;
}

SchedEntry* WaitQueue::front() const {
  const auto first = [](const List& list) {
    const auto found = std::ranges::find_if(list, [](const SchedEntry* entry) { return !entry->paused; });
    return found == list.end() ? nullptr : *found;
  };
  for (const Tier& tier : tiers_) {
    if (SchedEntry* entry = first(tier.preempted)) return entry;
    SchedEntry* best = nullptr;
    std::pair<double, std::uint64_t> best_rank;
    for (const auto& [tenant, list] : tier.fresh) {
      SchedEntry* entry = first(list);
      if (entry == nullptr) continue;
      const std::pair rank{share_.service(tenant), entry->queue_order};
      if (best == nullptr || rank < best_rank) {
        best = entry;
        best_rank = rank;
      }
    }
    if (best != nullptr) return best;
  }
  return nullptr;
}

std::vector<const SchedEntry*> WaitQueue::before(int tier, TenantId tenant, double token_weight) const {
  std::vector<const SchedEntry*> found;
  const auto take = [&](const List& list, double most) {
    double service = 0;
    for (const SchedEntry* entry : list) {
      if (entry->paused) continue;
      if (service > most) return service;
      service += entry->uncached_tokens * token_weight / entry->tenant_weight;
      found.push_back(entry);
    }
    return service;
  };
  constexpr double kAll = std::numeric_limits<double>::infinity();
  for (int better = 0; better <= tier; ++better) {
    const Tier& queue = tiers_[static_cast<std::size_t>(better)];
    take(queue.preempted, kAll);
    double own = kAll;  // service up to which others come first
    if (better == tier) {
      const auto mine = queue.fresh.find(tenant);
      own = share_.level(tenant) + (mine == queue.fresh.end() ? 0 : take(mine->second, kAll));
    }
    for (const auto& [other, list] : queue.fresh) {
      if (better < tier || other != tenant) take(list, own - share_.service(other));
    }
  }
  return found;
}

}  // namespace mlxs
