// Preemption by swap: a victim's own pages wait on the host where copying them there and back costs less than
// computing them again. Pages that others hold, too, stay where they are.
#include <algorithm>

#include "sched/scheduler_impl.h"

namespace mlxs {

void Scheduler::Impl::swap_out(SchedEntry& victim, StepPlan& out) {
  if (victim.sequence.passed() > 0) return;  // what comes back would lack what it was computed from
  const auto pages = victim.sequence.pages();
  const std::int32_t committed = victim.sequence.committed_tokens();
  // Who holds a page holds those before it, so the victim's own are the last ones.
  const auto own = std::ranges::find_if(pages, [&](PageId page) { return pool.holders(page) == 1; });
  const auto first = static_cast<std::int32_t>(own - pages.begin());
  const std::int32_t count = KvPool::pages_for(committed) - first;
  if (count <= 0 || swap.free() < count) return;
  const double recompute = (committed - first * kPageTokens) * cost.per_token();
  if (2 * count * swap.page_seconds() >= recompute) return;
  victim.swapped_from = first;
  victim.swapped_tokens = committed;
  for (std::int32_t page = first; page < first + count; ++page) {
    victim.swapped.push_back(swap.take());
    const PageId own_page = pages[static_cast<std::size_t>(page)];
    out.swap_out.push_back({own_page, victim.swapped.back(), pool.window_place(own_page)});
  }
  ++counters.swaps;
  counters.swapped_pages += static_cast<std::uint64_t>(count);
}

// After it got pages for all its tokens, the first of them from the prefix cache.
void Scheduler::Impl::swap_in(SchedEntry& entry, StepPlan& out) {
  if (entry.swapped.empty()) return;
  const std::int32_t found = entry.sequence.committed_tokens();
  const std::int32_t first = found / kPageTokens;
  // Else a page that was shared is gone: what comes after it has to be computed with it.
  if (first >= entry.swapped_from && found < entry.swapped_tokens) {
    give_window(entry, entry.swapped_tokens, entry.swapped_tokens);
    pool.commit(entry.sequence, entry.tokens, entry.swapped_tokens);
    for (std::int32_t page = first; page < KvPool::pages_for(entry.swapped_tokens); ++page) {
      const PageId own_page = entry.sequence.pages()[static_cast<std::size_t>(page)];
      const bool seen = page >= entry.sequence.window_first() && page < entry.sequence.window_end();
      out.swap_in.push_back({own_page, entry.swapped[static_cast<std::size_t>(page - entry.swapped_from)],
                             seen ? pool.window_place(own_page) : -1});
    }
  }
  drop_swapped(entry);
}

void Scheduler::Impl::drop_swapped(SchedEntry& entry) {
  for (const std::int32_t slot : entry.swapped) swap.give_back(slot);
  entry.swapped.clear();
}

}  // namespace mlxs
