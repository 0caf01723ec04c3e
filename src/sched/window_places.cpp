// Places of the layers with a window, where others see everything: every running request has those that its
// rows see. Requests start as far as there are places for all that they may come to hold, so that a step
// never lacks one: nobody is preempted for them.
#include <fmt/format.h>

#include <algorithm>

#include "mlxs/error.h"
#include "sched/invariants.h"
#include "sched/scheduler_impl.h"

namespace mlxs {

// What running requests may hold, without what a step adds; 0: as many as they like, as there is a place for
// every page.
std::int64_t Scheduler::Impl::places_to_promise(const SchedulerConfig& config, const KvPool& pool) {
  const KvPoolStats kv = pool.stats();
  if (!pool.has_layer_window() || kv.window_total >= kv.total) return 0;
  const bool whole = config.prefill_order == PrefillOrder::kFcfsWhole;
  const std::int32_t tokens = whole ? std::max(config.token_budget, config.max_context) : config.token_budget;
  const std::int64_t left = kv.window_total - pool.window_places_for(0, tokens);
  if (left < pool.window_places_for(1, 0)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} window places are too few for steps of {} tokens: one request needs {}",
                            kv.window_total, tokens, pool.window_places_for(1, tokens)),
                "give the KV cache more memory, or lower token_budget", "num_window_pages");
  }
  return left;
}

bool Scheduler::Impl::has_places(const SchedEntry& entry) const {
  if (most_places == 0) return true;
  const auto needed = [&](const SchedEntry& one) {
    return std::min<std::int64_t>(pool.window_places_for(1, 0), KvPool::pages_for(one.max_tokens));
  };
  std::int64_t promised = needed(entry);
  for (const SchedEntry* other : running) promised += needed(*other);
  return promised <= most_places;
}

// Pins give way: they are the only others who hold places.
void Scheduler::Impl::give_window(SchedEntry& entry, std::int32_t start, std::int32_t end) {
  while (!pool.reserve_window(entry.sequence, start, end))
    require(pins.give_up_oldest(), entry.id, "finds no window place");
}

void Scheduler::Impl::fill_window(const SchedEntry& entry, PlannedSpan& span) const {
  span.window_pages.clear();
  if (!pool.has_layer_window()) return;
  const auto first = static_cast<std::size_t>(pool.first_seen(span.start));
  const std::span<const PageId> pages = entry.sequence.pages();
  span.window_pages.resize(span.pages.size(), pool.window_place(pages[first]));
  for (std::size_t page = first; page < span.pages.size(); ++page)
    span.window_pages[page] = pool.window_place(pages[page]);
}

// A copy into the entry's first page that is not computed, of which `tokens` are wanted; nullopt: the page to
// copy has no window part, or has just lost it to this one.
std::optional<PageBranch> Scheduler::Impl::branch_of(SchedEntry& entry, PageBranch pages,
                                                     std::int32_t tokens) {
  if (!pool.has_layer_window()) return pages;
  const std::int32_t committed = entry.sequence.committed_tokens();
  give_window(entry, committed, committed + tokens);
  pages.window_from = pool.window_place(pages.from);
  pages.window_to = pool.window_place(pages.to);
  if (pages.window_from < 0) return std::nullopt;
  return pages;
}

}  // namespace mlxs
