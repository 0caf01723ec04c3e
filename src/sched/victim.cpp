// Victim choice. O(pages of the candidates), which a preemption pays rarely.
#include "sched/victim.h"

#include <algorithm>
#include <tuple>

namespace mlxs {
namespace {

// What a recompute has to do again: tokens on pages that only this request holds. Shared pages stay computed.
struct Loss {
  std::int32_t pages = 0, tokens = 0;
};
Loss loss_of(const SchedEntry& entry, const KvPool& pool) {
  const std::int32_t committed = entry.sequence.committed_tokens();
  Loss loss;
  std::int32_t start = 0;
  for (const PageId page : entry.sequence.pages()) {
    if (page >= 0 && pool.holders(page) == 1) {
      ++loss.pages;
      loss.tokens += std::clamp(committed - start, 0, kPageTokens);
    }
    start += kPageTokens;
  }
  return loss;
}

template <class Eligible>
SchedEntry* worst(std::span<SchedEntry* const> running, const KvPool& pool, Eligible eligible) {
  SchedEntry* victim = nullptr;
  std::tuple<bool, bool, int, std::int32_t, std::uint64_t> victim_rank;
  for (SchedEntry* entry : running) {
    if (!eligible(*entry)) continue;
    const Loss loss = loss_of(*entry, pool);
    const std::tuple rank{loss.pages > 0, !entry->returning(), entry->tier, -loss.tokens, entry->admission};
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
