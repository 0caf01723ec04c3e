// Targets: who is refused because it cannot make its TTFT, who is moved up because it might miss it, and what
// became of those that were taken.
#include <algorithm>
#include <utility>

#include "sched/forecast.h"
#include "sched/scheduler_impl.h"

namespace mlxs {
double Scheduler::Impl::own_seconds(const SchedEntry& entry) const {
  return seconds_to_first_token({.own_tokens = entry.uncached_tokens}, config.token_budget, cost,
                                finish_rate);
}

// From now on, if it were queued (or stood at the end of the queue) in `tier`.
double Scheduler::Impl::forecast(const SchedEntry& entry, int tier) const {
  Backlog backlog{.own_tokens = entry.uncached_tokens};
  const SchedEntry* oldest = nullptr;
  for (const SchedEntry* other : running) {
    if (!other->active() || other->decoding) continue;
    if (oldest == nullptr || other->admission < oldest->admission) oldest = other;
  }
  std::int32_t pages_held = 0;
  for (const SchedEntry* other : running) {
    count_running(*other, oldest, tier, backlog);
    pages_held += static_cast<std::int32_t>(other->sequence.pages().size()) - other->sequence.passed();
  }
  std::int32_t pages_missing = KvPool::pages_for(entry.uncached_tokens) - pool.available();
  std::int32_t ahead = 0;
  const WaitQueue::Place place{tier, entry.asked_tier(), entry.tenant};
  for (const SchedEntry* other : queue.before(place, config.fairness.prompt_weight)) {
    if (other == &entry) continue;
    ++ahead;
    backlog.prefill_tokens += other->uncached_tokens;
    pages_missing += KvPool::pages_for(other->uncached_tokens);
  }
  const auto num_running = static_cast<std::int32_t>(running.size());
  backlog.ends = std::max(0, num_running + ahead + 1 - slots);
  if (pages_missing > 0 && pages_held > 0) {  // an end gives back as many pages as a running request has
    backlog.ends = std::max(backlog.ends, (pages_missing * num_running + pages_held - 1) / pages_held);
  }
  return seconds_to_first_token(backlog, budget, cost, finish_rate);
}

// Sets the entry's tier and its due times, or says why not.
std::optional<Refusal> Scheduler::Impl::promise(SchedEntry& entry, TimePoint now) {
  if (!entry.slo.any()) return std::nullopt;
  ++slo.requests;
  if (entry.slo.ttft <= Duration::zero()) return std::nullopt;
  const double left = to_seconds(entry.arrival + entry.slo.ttft - now);
  double wait = forecast(entry, entry.tier);
  if (wait > left && entry.tier > kRescueTier) {
    wait = forecast(entry, kRescueTier);
    if (wait <= left) {
      entry.tier = kRescueTier;
      entry.rescued = true;
      ++slo.promoted;
    }
  }
  if (wait > left) return refuse_deadline(entry, wait, now);
  const Duration own = from_seconds(own_seconds(entry));
  entry.hopeless_at = entry.arrival + entry.slo.ttft - own;
  entry.risk_at = now + (entry.hopeless_at - now) / 2;
  return std::nullopt;
}

Refusal Scheduler::Impl::refuse_deadline(const SchedEntry& entry, double wait, TimePoint now) {
  ++slo.refused;
  ++counters.refused;
  const double target = to_seconds(entry.slo.ttft);
  // The backlog shrinks by a second a second; what a request needs for itself alone does not.
  const bool never = own_seconds(entry) > target;
  return {.request = entry.id,
          .cause = RefusalCause::kDeadline,
          .retry_after_s = never ? 0.0 : std::max(wait - target, kLeastRetrySeconds),
          .predicted_ttft_s = to_seconds(now - entry.arrival) + wait};
}

// Ends those that waited too long: whatever they cost from here on would be for nothing.
void Scheduler::Impl::drop_hopeless(TimePoint now, StepPlan& out) {
  const auto overdue = queue.age(now);
  for (SchedEntry* entry : overdue) {
    // Steps may have become faster, and others may have filled the cache for it.
    entry->uncached_tokens = entry->num_tokens() - pool.peek_prefix(entry->tokens, entry->cache_salt).tokens;
    const TimePoint deadline = entry->arrival + entry->slo.ttft;
    entry->hopeless_at = deadline - from_seconds(own_seconds(*entry));
    if (entry->hopeless_at > now) {
      queue.remind(*entry);
      continue;
    }
    out.refused.push_back(refuse_deadline(*entry, forecast(*entry, entry->tier), now));
    end(*entry);
  }
}

void Scheduler::Impl::count_outcome(const SchedEntry& entry) {
  if (!entry.slo.any()) return;
  const auto later_tokens = entry.num_tokens() - entry.prompt_tokens - 1;
  const bool late = entry.slo.ttft > Duration::zero() && entry.first_token - entry.arrival > entry.slo.ttft;
  const bool slow = entry.slo.tpot > Duration::zero() && later_tokens > 0 &&
                    entry.last_token - entry.first_token > entry.slo.tpot * later_tokens;
  slo.missed_ttft += late;
  slo.missed_tpot += slow;
  if (late || slow) return;
  ++slo.met;
  slo.goodput_tokens += static_cast<std::uint64_t>(later_tokens + 1);
}

}  // namespace mlxs
