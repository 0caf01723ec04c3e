// One request as the scheduler's parts see it. Private to sched/; the Scheduler owns every entry and its
// address is stable.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/types.h"
#include "kv/kv_pool.h"
#include "sched/scheduler.h"

namespace mlxs {

struct SchedEntry {
  RequestId id = 0;
  std::vector<TokenId> tokens;  // prompt, then what was sampled
  std::int32_t prompt_tokens = 0;
  std::int32_t max_tokens = 0;  // prompt + new
  std::uint64_t cache_salt = 0;
  std::vector<PinRequest> pins;  // of the prompt, once it is computed
  Priority priority = Priority::kNormal;

  KvSequence sequence;  // has pages only while running
  std::int32_t cached_prompt_tokens = 0;
  PrefixMiss prefix_miss;       // when it was first admitted
  std::uint64_t admission = 0;  // order of first admissions; 0 before
  bool running = false;         // has a slot and pages; else it waits
  bool paused = false;
  std::optional<std::uint64_t> tail;  // see Branching; while others may copy its prompt's last page
  bool decoding = false;              // has sampled since it was admitted
  bool overtook = false;              // got its place before one that lacked pages
  bool preempted = false;             // was admitted before and lost its pages
  std::int32_t spared_until = 0;      // tokens; see returning()

  std::vector<std::int32_t> swapped;  // slots of the host that keep its pages from swapped_from on, while it
                                      // waits
  std::int32_t swapped_from = 0, swapped_tokens = 0;

  SloTarget slo;
  TimePoint arrival{}, first_token{}, last_token{};  // zero: not yet
  TenantId tenant = 0;
  double tenant_weight = 1;
  double tenant_service = 0;         // scratch of split_prefill_budget()
  std::uint64_t queue_order = 0;     // of the last time it began to wait
  std::int32_t uncached_tokens = 0;  // of the prompt, when it was added

  int tier = 0;                                    // priority, or better while it waits, after ageing
  bool rescued = false;                            // moved up because of its target, until its first token
  TimePoint lacks_pages_since = TimePoint::max();  // first in the queue and found too few
  TimePoint promote_at{};                          // while waiting: when it ages into the next tier
  TimePoint risk_at = TimePoint::max();            // while waiting: when half of its slack is gone
  TimePoint hopeless_at = TimePoint::max();  // while waiting for the first time: too late to make its TTFT
  std::list<SchedEntry*>::iterator place{};  // while waiting

  std::int32_t num_tokens() const { return static_cast<std::int32_t>(tokens.size()); }
  std::int32_t remaining() const { return num_tokens() - sequence.committed_tokens(); }  // tokens to compute
  bool active() const { return running && !paused; }
  int asked_tier() const { return static_cast<int>(priority); }
  // Came back from a preemption lately: spared if somebody else can give up pages.
  bool returning() const { return preempted && num_tokens() < spared_until; }
  // Preempted once and nothing gained from coming back yet: taking its pages again would be thrashing.
  bool recovering() const { return preempted && !decoding; }
};

using SchedEntries = std::unordered_map<RequestId, SchedEntry>;

}  // namespace mlxs
