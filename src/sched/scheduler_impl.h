// The Scheduler's state and the parts of a step. Private to sched/: scheduler.cpp has the public calls,
// planning.cpp what plan() and commit() are made of. A request waits (in the queue, no pages) or runs (a
// slot, pages for all its tokens); either may be paused.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "sched/admission_window.h"
#include "sched/branching.h"
#include "sched/chunking.h"
#include "sched/entry.h"
#include "sched/finish_rate.h"
#include "sched/scheduler.h"
#include "sched/step_cost.h"
#include "sched/swap_space.h"
#include "sched/wait_queue.h"

namespace mlxs {

inline constexpr double kLeastRetrySeconds = 0.1;
inline constexpr std::int32_t kCalmSteps = 64;

struct Scheduler::Impl {
  struct Planned {      // a span of a step in flight
    SchedEntry* entry;  // null: void, the request has ended
    RequestId request;
    std::int32_t end;
    std::int32_t count;
    bool samples;
  };
  struct Blocked {  // found too few pages when it might have had these: asked again when that grows
    RequestId id = 0;
    std::int32_t spare_pages = -1;
  };

  Impl(const SchedulerConfig& given, KvPool& kv)
      : config(given),
        slots(std::min(given.max_running, given.token_budget)),
        most_places(places_to_promise(given, kv)),
        most_tokens(given.token_budget),
        pool(kv),
        pins(kv, given.pinned_pages, given.pin_ttl),
        queue(given.aging_interval),
        swap(given.swap_pages),
        branching(kv),
        window(given.window),
        budget(given.token_budget) {}

  // scheduler.cpp
  Refusal queue_full(RequestId id);
  SchedEntry* least_entitled(const SchedRequest& request) const;  // in a full queue; see WaitQueue
  void displace(SchedEntry& entry);

  // slo.cpp
  double own_seconds(const SchedEntry& entry) const;  // to its first token on a machine that has nothing else
  double forecast(const SchedEntry& entry, int tier) const;
  std::optional<Refusal> promise(SchedEntry& entry, TimePoint now);
  Refusal refuse_deadline(const SchedEntry& entry, double wait, TimePoint now);
  void drop_hopeless(TimePoint now, StepPlan& out);
  void count_outcome(const SchedEntry& entry);

  void set_paused(RequestId id, bool value);
  void grow_decodes(TimePoint now, StepPlan& out);
  void admit(TimePoint now, StepPlan& out);
  void overtake(SchedEntry& first, TimePoint now, StepPlan& out);
  std::int32_t spare_pages() const;
  std::int32_t pages_needed(const SchedEntry& entry) const;
  bool fits(const SchedEntry& entry);
  void start(SchedEntry& entry, TimePoint now, StepPlan& out);
  void preempt(SchedEntry& victim, RequestId for_whom, TimePoint now, StepPlan& out);
  void requeue(SchedEntry& victim, TimePoint now);

  // swapping.cpp
  void swap_out(SchedEntry& victim, StepPlan& out);
  void swap_in(SchedEntry& entry, StepPlan& out);
  void drop_swapped(SchedEntry& entry);

  // window_places.cpp
  static std::int64_t places_to_promise(const SchedulerConfig& config, const KvPool& pool);
  bool has_places(const SchedEntry& entry) const;
  void give_window(SchedEntry& entry, std::int32_t start, std::int32_t end);
  void fill_window(const SchedEntry& entry, PlannedSpan& span) const;
  std::optional<PageBranch> branch_of(SchedEntry& entry, PageBranch pages, std::int32_t tokens);

  // memory_pressure.cpp
  void bound_steps(std::int32_t tokens);
  void step_ran();

  void plan_decodes(StepPlan& out);
  std::int32_t choose_budget(std::int32_t decode_rows) const;
  void plan_prefills(StepPlan& out);
  std::int32_t copy_begun(SchedEntry& entry, StepPlan& out);
  void count_blocked(const StepPlan& out);
  void plan_span(SchedEntry& entry, std::int32_t count, StepPlan& out);
  void copy_pages(const SchedEntry& entry, std::int32_t tokens, PlannedSpan& span) const;
  void forget_spans(const SchedEntry& entry);  // that are in flight
  bool goes_ahead() const;
  bool accept(const Planned& span, const SpanResult& result, TimePoint now);
  void pin(const SchedEntry& entry, TimePoint now);
  void stop(SchedEntry& entry);
  void end(SchedEntry& entry);
  std::int32_t num_active() const {
    return static_cast<std::int32_t>(std::ranges::count_if(running, &SchedEntry::active));
  }

  SchedulerConfig config;
  std::int32_t slots;           // every running request gets at least one token of the budget in every step
  std::int64_t most_places;     // of the layers with a window, for all running requests; 0: no bound
  std::int32_t most_tokens;     // of a step: the budget, or what the device had memory for
  std::int32_t calm_steps = 0;  // that ran since most_tokens changed
  KvPool& pool;
  PinnedPrefixes pins;
  SchedEntries entries;
  WaitQueue queue;
  SwapSpace swap;
  Branching branching;
  std::vector<SchedEntry*> running;
  std::vector<Planned> in_flight;  // empty between commit() and plan(), unless a step was planned ahead
  std::vector<Planned> behind;     // the step behind that
  Blocked blocked;
  std::uint64_t admissions = 0;
  std::int32_t paused = 0;
  SchedulerStats counters;         // its uint64 fields
  std::vector<Refusal> displaced;  // ended since the last plan(), which says so
  AdmissionWindow window;
  std::int32_t budget;  // tokens of the step that is planned
  SloStats slo;
  FinishRate finish_rate;
  StepCost cost;
  std::int32_t copies = 0;  // of pages, of the step in flight
  std::uint64_t step_in_flight = 0;
  TimePoint step_start{}, ahead_start{};  // of the steps in flight
  std::vector<SchedEntry*> scratch;       // reused by plan()
  std::vector<PrefillChunk> chunks;       // reused by plan()
};

}  // namespace mlxs
