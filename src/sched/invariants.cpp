// Invariants of requests and their pages. O(requests + pages).
#include "sched/invariants.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "mlxs/error.h"

namespace mlxs {

void require(bool holds, RequestId id, const char* broken) {
  if (holds) return;
  throw Error(ErrorCode::kInternal, fmt::format("scheduler: request {} {}", id, broken),
              "this is a bug; please report it");
}

namespace {

void check_entry(const SchedEntry& entry, const KvPool& pool) {
  const auto pages = entry.sequence.pages();
  const std::int32_t committed = entry.sequence.committed_tokens();
  require(entry.tier >= 0 && entry.tier <= static_cast<int>(entry.priority), entry.id,
          "aged into a worse tier");
  require(entry.num_tokens() < entry.max_tokens, entry.id, "generated all it may and did not end");
  require(entry.remaining() >= 1, entry.id, "has nothing left to compute");
  require(!entry.decoding || entry.remaining() == 1, entry.id, "is a decode row of several tokens");
  require(entry.running
              ? KvPool::pages_for(committed) <= static_cast<std::int32_t>(pages.size()) && !pages.empty()
              : pages.empty() && committed == 0,
          entry.id, "runs without its pages, or has pages and does not run");
  // Written pages may be shared; a page with a position yet to be written belongs to its one writer.
  for (std::size_t i = static_cast<std::size_t>(committed / kPageTokens); i < pages.size(); ++i) {
    require(pool.holders(pages[i]) == 1, entry.id, "shares a page that it will write");
  }
  require(!pool.has_layer_window() || (entry.sequence.window_first() <= pool.first_seen(committed) &&
                                       entry.sequence.window_end() >= KvPool::pages_for(committed)),
          entry.id, "lacks a window place that its next token sees");
}

}  // namespace

void check_entries(const SchedEntries& entries, std::span<SchedEntry* const> running, const KvPool& pool,
                   const PinnedPrefixes& pins) {
  std::vector<std::int32_t> holders(static_cast<std::size_t>(pool.stats().total), 0), window_holders(holders);
  for (const auto& [id, entry] : entries) {
    check_entry(entry, pool);
    require(std::ranges::count(running, &entry) == (entry.running ? 1 : 0), id,
            "runs and is not listed, or twice");
    const auto held = entry.sequence.pages().subspan(static_cast<std::size_t>(entry.sequence.passed()));
    for (const PageId page : held) ++holders[static_cast<std::size_t>(page)];
    for (const PageId page : entry.sequence.window_held()) ++window_holders[static_cast<std::size_t>(page)];
  }
  pins.add_holders(holders);
  pins.add_window_holders(window_holders);
  const auto compare = [](std::size_t page, const char* what, std::int32_t ours, std::int32_t counted) {
    if (ours == counted) return;
    throw Error(ErrorCode::kInternal,
                fmt::format("scheduler: {} {} is held by {} requests and pins, {} by the pool's count", what,
                            page, ours, counted),
                "this is a bug; please report it");
  };
  for (std::size_t page = 0; page < holders.size(); ++page) {
    const auto id = static_cast<PageId>(page);
    compare(page, "page", holders[page], pool.holders(id));
    compare(page, "the window place of page", window_holders[page], pool.window_places().holders(id));
  }
}

}  // namespace mlxs
