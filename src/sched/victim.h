// Who loses its pages when the pool runs out: preemption by recompute. Pure functions over the running
// requests.
#pragma once

#include <span>

#include "kv/kv_pool.h"
#include "sched/entry.h"

namespace mlxs {

// The active request to preempt so that the others can go on: one that gives back a page, has not come back
// from a preemption lately, is of the worst tier, loses the fewest computed tokens, was admitted last: the
// first of these that makes a difference decides. Requests that recover from a preemption are spared; whoever
// needs a page is decoding, so it is a candidate itself and the answer exists.
SchedEntry* choose_victim(std::span<SchedEntry* const> running, const KvPool& pool);

// The same among paused requests; null if there are none.
SchedEntry* choose_paused_victim(std::span<SchedEntry* const> running, const KvPool& pool);

}  // namespace mlxs
