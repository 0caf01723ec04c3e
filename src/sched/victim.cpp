// Victim choice. O(pages of the candidates), which a preemption pays rarely.
#include "sched/victim.h"

#include <algorithm>
#include <tuple>

namespace mlxs {
namespace {

// Pages that only this request holds: what a recompute has to fill again. Shared ones stay computed.
std::int32_t exclusive_pages(const SchedEntry& entry, const KvPool& pool) {
  const auto computed = entry.sequence.pages().first(
      static_cast<std::size_t>(KvPool::pages_for(entry.sequence.committed_tokens())));
  return static_cast<std::int32_t>(
      std::ranges::count_if(computed, [&](PageId page) { return pool.holders(page) == 1; }));
}

template <class Eligible>
SchedEntry* worst(std::span<SchedEntry* const> running, const KvPool& pool, Eligible eligible) {
  SchedEntry* victim = nullptr;
  std::tuple<int, std::int32_t, std::uint64_t> victim_rank;
  for (SchedEntry* entry : running) {
    if (!eligible(*entry)) continue;
    const std::tuple rank{entry->tier, -exclusive_pages(*entry, pool), entry->admission};
    if (victim == nullptr || rank > victim_rank) {
      victim = entry;
      victim_rank = rank;
    }
  }
  return victim;
}

}  // namespace

SchedEntry* choose_victim(std::span<SchedEntry* const> running, const KvPool& pool) {
  return worst(running, pool, [](const SchedEntry& e) { return e.active() && !e.recovering(); });
}

SchedEntry* choose_paused_victim(std::span<SchedEntry* const> running, const KvPool& pool) {
  return worst(running, pool, [](const SchedEntry& e) { return e.paused; });
}

}  // namespace mlxs
