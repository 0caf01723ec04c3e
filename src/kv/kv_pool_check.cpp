// The pool's invariants. O(pages).
#include <fmt/format.h>

#include "kv/kv_pool.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

[[noreturn]] void fail(std::string what) {
  throw Error(ErrorCode::kInternal, "KV pool: " + std::move(what), "this is a bug; please report it");
}

}  // namespace

void KvPool::check() const {
  std::int32_t held = 0;
  std::vector<std::int32_t> child_holders(pages_.size(), 0);
  for (PageId id = 0; id < config_.num_pages; ++id) {
    const Page& page = at(id);
    if (page.holders < 0) fail(fmt::format("page {} has {} holders", id, page.holders));
    held += page.holders > 0 ? 1 : 0;
    const bool place = places_.of(id) >= 0;
    if (places_.holders(id) > page.holders || (place && places_.holders(id) == 0 && !tree_.contains(id)))
      fail(fmt::format("page {} has a window place that nobody can use", id));
    if (!tree_.contains(id)) continue;
    if (!config_.prefix_cache) fail(fmt::format("page {} is in the tree without a prefix cache", id));
    tree_.check(id);
    const PageId parent = tree_.parent(id);
    if (parent < 0) continue;
    child_holders[static_cast<std::size_t>(parent)] += page.holders;
    if (config_.window == 0 && child_holders[static_cast<std::size_t>(parent)] > at(parent).holders) {
      fail(fmt::format("page {} is held without its parent {}", id, parent));
    }
  }
  if (held + available() != config_.num_pages) {
    fail(fmt::format("{} free + {} cached + {} held != {} pages", num_free(), cached_, held,
                     config_.num_pages));
  }
  check_order();
  places_.check();
}

// Free and cached pages are disjoint, held by nobody, and cached children are older than their parents.
void KvPool::check_order() const {
  std::vector<bool> seen(pages_.size(), false);
  for (const PageId id : free_) {
    if (at(id).holders != 0 || tree_.contains(id) || seen[static_cast<std::size_t>(id)]) {
      fail(fmt::format("page {} is free and in use, or free twice", id));
    }
    seen[static_cast<std::size_t>(id)] = true;
  }
  std::int32_t cached = 0, entries = 0;
  PageId older = -1;
  for (PageId id = oldest_; id >= 0; older = id, id = at(id).newer, ++cached) {
    const Page& page = at(id);
    if (page.holders != 0 || !tree_.contains(id) || page.older != older ||
        seen[static_cast<std::size_t>(id)]) {
      fail(fmt::format("page {} is cached and in use, or out of order", id));
    }
    seen[static_cast<std::size_t>(id)] = true;
    const PageId parent = tree_.parent(id);
    if (config_.window == 0 && parent >= 0 && seen[static_cast<std::size_t>(parent)]) {
      fail(fmt::format("page {} would be evicted before its child {}", parent, id));
    }
    if (older >= 0 && page.since < at(older).since) {
      fail(fmt::format("page {} is cached for longer than {} before it", id, older));
    }
    entries += tree_.has_children(id) ? 0 : 1;
  }
  if (cached != cached_ || older != newest_)
    fail(fmt::format("{} cached pages, {} counted", cached, cached_));
  if (entries != entries_ || entries > config_.max_entries)
    fail(fmt::format("{} entries, {} counted, {} allowed", entries, entries_, config_.max_entries));
}

}  // namespace mlxs
