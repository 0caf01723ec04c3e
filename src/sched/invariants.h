// What is true of every request between two calls of the Scheduler.
#pragma once

#include <span>

#include "kv/kv_pool.h"
#include "kv/pinned_prefixes.h"
#include "sched/entry.h"

namespace mlxs {

// Throws kInternal that names the request and what is wrong with it.
void require(bool holds, RequestId id, const char* broken);

// Every entry, and every page's holders, by require(). The pool must belong to these requests and pins
// alone.
void check_entries(const SchedEntries& entries, std::span<SchedEntry* const> running, const KvPool& pool,
                   const PinnedPrefixes& pins);

}  // namespace mlxs
