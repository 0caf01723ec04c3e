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
  tokens_ += entry.num_tokens();
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
  tokens_ -= entry.num_tokens();
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
        entry->rescued = true;
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

namespace {

template <class List>
SchedEntry* first_ready(const List& list, int worst_asked = kWorstTier) {
  const auto found = std::ranges::find_if(list, [worst_asked](const SchedEntry* entry) {
    return !entry->paused && entry->asked_tier() <= worst_asked;
  });
  return found == list.end() ? nullptr : *found;
}

}  // namespace

// Of the tenants' first requests that asked for `worst_asked` or better, the one whose tenant got least.
SchedEntry* WaitQueue::least_served(const Tier& tier, int worst_asked) const {
  SchedEntry* best = nullptr;
  std::pair<double, std::uint64_t> best_rank;
  for (const auto& [tenant, list] : tier.fresh) {
    SchedEntry* entry = first_ready(list, worst_asked);
    if (entry == nullptr) continue;
    const std::pair rank{share_.service(tenant), entry->queue_order};
    if (best == nullptr || rank < best_rank) {
      best = entry;
      best_rank = rank;
    }
  }
  return best;
}

SchedEntry* WaitQueue::front() const {
  for (const Tier& tier : tiers_) {
    if (SchedEntry* entry = first_ready(tier.preempted)) return entry;
    SchedEntry* best = least_served(tier, kWorstTier);
    if (best == nullptr) continue;
    // Age is no claim against who asked for as much and got less.
    for (int worse = best->tier + 1; worse <= best->asked_tier(); ++worse) {
      SchedEntry* other = least_served(tiers_[static_cast<std::size_t>(worse)], best->asked_tier());
      if (other != nullptr && share_.service(other->tenant) < share_.service(best->tenant)) return other;
    }
    return best;
  }
  return nullptr;
}

void WaitQueue::beside(const SchedEntry& first, std::size_t most, std::vector<SchedEntry*>& out) const {
  out.clear();
  const auto tier = static_cast<std::size_t>(first.tier);
  const std::size_t each = most / std::max<std::size_t>(1, tiers_[tier].fresh.size()) + 1;
  for (const auto& [tenant, list] : tiers_[tier].fresh) {
    const auto better = std::span(tiers_).first(tier);
    if (std::ranges::any_of(better, [&](const Tier& other) { return other.fresh.contains(tenant); }))
      continue;
    std::size_t taken = 0;
    for (auto entry = list.begin(); entry != list.end() && taken < each && out.size() < most; ++entry) {
      if (*entry == &first || (*entry)->paused) continue;
      out.push_back(*entry);
      ++taken;
    }
  }
}

std::vector<const SchedEntry*> WaitQueue::before(const Place& place, double token_weight) const {
  std::vector<const SchedEntry*> found;
  // Adds what has the better claim whatever its tenant got, and of the rest `most` weighted tokens.
  const auto take = [&](const List& list, int in_tier, double most) {
    double service = 0;
    for (const SchedEntry* entry : list) {
      const bool claims = in_tier <= place.tier && entry->asked_tier() < place.asked_tier;
      const bool competes = in_tier <= place.tier || entry->asked_tier() <= place.asked_tier;
      if (entry->paused || !competes || (!claims && service > most)) continue;
      service += entry->uncached_tokens * token_weight / entry->tenant_weight;
      found.push_back(entry);
    }
    return service;
  };
  constexpr double kAll = std::numeric_limits<double>::infinity();
  double own = share_.level(place.tenant);
  for (int tier = 0; tier <= place.tier; ++tier) {
    const Tier& queue = tiers_[static_cast<std::size_t>(tier)];
    take(queue.preempted, tier, kAll);
    if (const auto mine = queue.fresh.find(place.tenant); mine != queue.fresh.end())
      own += take(mine->second, tier, kAll);
  }
  for (int tier = 0; tier <= place.asked_tier; ++tier) {
    for (const auto& [other, list] : tiers_[static_cast<std::size_t>(tier)].fresh) {
      if (other != place.tenant) take(list, tier, own - share_.service(other));
    }
  }
  return found;
}

SchedEntry* WaitQueue::newest_of_worst(TenantId tenant) const {
  for (auto tier = tiers_.rbegin(); tier != tiers_.rend(); ++tier) {
    if (const auto found = tier->fresh.find(tenant); found != tier->fresh.end()) return found->second.back();
  }
  return nullptr;
}

SchedEntry* WaitQueue::least_entitled(const Place& place, double weight) const {
  const auto [crowd, crowding] = share_.most_waiting();
  const double own = (share_.waiting(place.tenant) + 1) / weight;
  if (crowd != place.tenant && own < crowding) return newest_of_worst(crowd);
  SchedEntry* mine = newest_of_worst(place.tenant);
  return mine != nullptr && mine->asked_tier() > place.asked_tier ? mine : nullptr;
}

}  // namespace mlxs
