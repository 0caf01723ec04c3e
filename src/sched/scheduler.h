// Decides which request runs which tokens in the next step. Pure: no threads, no clock of its own, no
// tensors. The engine thread owns one per model. Continuous batching with chunked prefill under a token
// budget (Sarathi-Serve, Agrawal et al. 2024): decode rows first, so that a long prompt never stalls running
// answers. Same calls, same plans. A broken promise of the caller (unknown step, duplicate id) throws
// kInternal.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/types.h"
#include "kv/kv_pool.h"
#include "sched/step_plan.h"

namespace mlxs {

enum class Priority : std::uint8_t { kCritical, kHigh, kNormal, kLow };

// How what decode rows leave of a step's budget is split among prompts. The other two are what other servers
// do, for comparison in the simulator.
enum class PrefillOrder : std::uint8_t {
  kShortestFirst,  // see chunking.h
  kFcfs,           // chunks in order of admission
  kFcfsWhole,      // as kFcfs without chunks: whole prompts, and one at least even if the budget is smaller
};

// Every number ≥ 1; the constructor throws kInvalidArgument otherwise.
struct SchedulerConfig {
  std::int32_t max_running = 64;  // sequences with pages at once; never more than token_budget run together
  std::int32_t max_queue_depth = 1000;                        // waiting requests; one more is refused
  std::int32_t token_budget = 512;                            // tokens of one step
  std::int32_t max_context = 8192;                            // prompt + generated of one request
  Duration aging_interval = std::chrono::milliseconds(5000);  // a waiting request moves up one tier each
  PrefillOrder prefill_order = PrefillOrder::kShortestFirst;
};

struct SchedRequest {
  RequestId id = 0;
  std::vector<TokenId> prompt;      // ≥ 1 token
  std::int32_t max_new_tokens = 0;  // ≥ 1; the request ends with this many even if the engine does not say so
  Priority priority = Priority::kNormal;
  TimePoint arrival{};
  std::uint64_t cache_salt = 0;  // separates prefix caches (tenant)
};

struct SchedulerStats {
  std::int32_t running = 0, waiting = 0, paused = 0;  // every request is in one of them
  std::uint64_t steps = 0, preemptions = 0, admitted = 0, finished = 0, refused = 0;
  // Prompt tokens of admitted requests, those of them that the prefix cache held, and sampled tokens.
  std::uint64_t prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0;
  KvPoolStats kv;
};

class Scheduler {
 public:
  // pool outlives the scheduler.
  Scheduler(SchedulerConfig config, KvPool& pool);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Refuses at once what can never run (kTooLong) or finds the queue full; nullopt: queued.
  std::optional<Refusal> add(SchedRequest request);
  // Ends a request in any state and frees its pages; unknown ids are ignored. Not between plan() and
  // commit().
  void cancel(RequestId id);
  // Back-pressure: a paused request keeps its pages but gets no rows until resumed. It loses its pages only
  // to a request that could not run otherwise. Unknown ids are ignored.
  void pause(RequestId id);
  void resume(RequestId id);

  // The next step into `out`, whose buffers are reused; empty if nothing can run.
  // Must be followed by commit() of its result unless empty.
  void plan(TimePoint now, StepPlan& out);
  void commit(const StepResult& result);

  bool idle() const;  // nothing waiting, running or paused
  SchedulerStats stats() const;
  // Prompt tokens that came from the cache; 0 if unknown. Grows until the request's last prefill span is
  // planned.
  std::int32_t cached_prefix(RequestId id) const;
  // Requests that hold a place, paused ones too, in the order in which they got it; `most` of them.
  std::vector<RequestId> running(std::size_t most) const;
  void check() const;  // invariants of queues and pool; throws kInternal

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mlxs
