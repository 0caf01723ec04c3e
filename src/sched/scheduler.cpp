// The step loop's control half: age → grow decodes (preempting) → admit → plan decodes → plan prefills.
// A request waits (in the queue, no pages) or runs (a slot, pages for all its tokens); either may be paused.
#include "sched/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "mlxs/error.h"
#include "sched/chunking.h"
#include "sched/entry.h"
#include "sched/finish_rate.h"
#include "sched/invariants.h"
#include "sched/victim.h"
#include "sched/wait_queue.h"

namespace mlxs {
namespace {

// Pages left free for each running request at an admission (fewer if it cannot grow by as many): room to grow
// before somebody has to be preempted. Simulated at 10x overload with answers of 500 tokens: 1 page
// recomputes 29 % of all tokens, 4 pages 9 % at the best throughput; 8 pages leave slots empty.
constexpr std::int32_t kHeadroomPages = 4;

[[noreturn]] void fail(std::string what) {
  throw Error(ErrorCode::kInternal, "scheduler: " + std::move(what), "this is a bug; please report it");
}

void validate(const SchedulerConfig& config) {
  const std::pair<const char*, std::int64_t> fields[] = {{"max_running", config.max_running},
                                                         {"max_queue_depth", config.max_queue_depth},
                                                         {"token_budget", config.token_budget},
                                                         {"max_context", config.max_context},
                                                         {"aging_interval", config.aging_interval.count()}};
  for (const auto& [name, value] : fields) {
    if (value >= 1) continue;
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{} = {} must be at least 1", name, value),
                "raise it, or leave it out for the default", name);
  }
}

}  // namespace

struct Scheduler::Impl {
  struct Planned {  // a span of the step in flight
    SchedEntry* entry;
    std::int32_t end;
    bool samples;
  };
  struct Blocked {  // found too few pages when it might have had these: asked again when that grows
    RequestId id = 0;
    std::int32_t spare_pages = -1;
  };

  Impl(SchedulerConfig given, KvPool& kv)
      : config(given),
        slots(std::min(given.max_running, given.token_budget)),
        pool(kv),
        queue(given.aging_interval) {}

  void set_paused(RequestId id, bool value);
  void grow_decodes(TimePoint now, StepPlan& out);
  void admit(TimePoint now, StepPlan& out);
  bool fits(const SchedEntry& entry);
  void start(SchedEntry& entry);
  void preempt(SchedEntry& victim, RequestId for_whom, TimePoint now, StepPlan& out);
  void plan_decodes(StepPlan& out);
  void plan_prefills(StepPlan& out);
  void plan_span(SchedEntry& entry, std::int32_t count, StepPlan& out);
  bool accept(const Planned& span, const SpanResult& result);
  void stop(SchedEntry& entry);
  void end(SchedEntry& entry);
  std::int32_t num_active() const {
    return static_cast<std::int32_t>(std::ranges::count_if(running, &SchedEntry::active));
  }

  SchedulerConfig config;
  std::int32_t slots;  // every running request gets at least one token of the budget in every step
  KvPool& pool;
  SchedEntries entries;
  WaitQueue queue;
  std::vector<SchedEntry*> running;
  std::vector<Planned> in_flight;  // empty between commit() and plan()
  Blocked blocked;
  std::uint64_t admissions = 0;
  std::int32_t paused = 0;
  SchedulerStats counters;  // its uint64 fields
  FinishRate finish_rate;
  std::vector<SchedEntry*> scratch;  // reused by plan()
  std::vector<PrefillChunk> chunks;  // reused by plan()
};

Scheduler::Scheduler(SchedulerConfig config, KvPool& pool) {
  validate(config);
  impl_ = std::make_unique<Impl>(config, pool);
}

Scheduler::~Scheduler() {
  for (SchedEntry* entry : impl_->running) impl_->pool.close(std::move(entry->sequence));
}

std::optional<Refusal> Scheduler::add(SchedRequest request) {
  Impl& s = *impl_;
  require(!request.prompt.empty(), request.id, "has an empty prompt");
  require(request.max_new_tokens >= 1, request.id, "may not generate anything");
  require(!s.entries.contains(request.id), request.id, "was added before and still lives");
  const std::int64_t tokens = static_cast<std::int64_t>(request.prompt.size()) + request.max_new_tokens;
  if (tokens > s.config.max_context || tokens > std::int64_t{s.pool.stats().total} * kPageTokens) {
    ++s.counters.refused;
    return Refusal{.request = request.id, .cause = RefusalCause::kTooLong};
  }
  if (s.queue.size() >= static_cast<std::size_t>(s.config.max_queue_depth)) {
    ++s.counters.refused;
    return Refusal{.request = request.id,
                   .cause = RefusalCause::kQueueFull,
                   .retry_after_s = s.finish_rate.seconds_to_next()};
  }
  SchedEntry& entry = s.entries[request.id];
  entry.id = request.id;
  entry.prompt_tokens = static_cast<std::int32_t>(request.prompt.size());
  entry.max_tokens = static_cast<std::int32_t>(tokens);
  entry.tokens = std::move(request.prompt);
  entry.cache_salt = request.cache_salt;
  entry.priority = request.priority;
  entry.tier = static_cast<int>(request.priority);
  s.queue.push(entry, request.arrival);
  return std::nullopt;
}

void Scheduler::cancel(RequestId id) {
  Impl& s = *impl_;
  require(s.in_flight.empty(), id, "cancelled between plan() and commit()");
  const auto found = s.entries.find(id);
  if (found == s.entries.end()) return;
  s.end(found->second);
}

void Scheduler::pause(RequestId id) { impl_->set_paused(id, true); }
void Scheduler::resume(RequestId id) { impl_->set_paused(id, false); }

void Scheduler::plan(TimePoint now, StepPlan& out) {
  Impl& s = *impl_;
  if (!s.in_flight.empty()) fail(fmt::format("step {} was planned and not committed", s.counters.steps));
  out.step = 0;
  out.preempted.clear();
  out.preempted_for.clear();
  out.admitted.clear();
  out.blocked = QueueBlock::kNothing;
  out.total_tokens = out.decode_rows = 0;
  s.queue.age(now);
  s.grow_decodes(now, out);
  s.admit(now, out);
  s.plan_decodes(out);
  s.plan_prefills(out);
  out.spans.resize(s.in_flight.size());
  if (!out.empty()) out.step = ++s.counters.steps;
}

void Scheduler::commit(const StepResult& result) {
  Impl& s = *impl_;
  if (s.in_flight.empty() || result.step != s.counters.steps || result.spans.size() != s.in_flight.size()) {
    fail(fmt::format("step {} of {} spans committed, {} of {} planned", result.step, result.spans.size(),
                     s.counters.steps, s.in_flight.size()));
  }
  int finished = 0;
  for (std::size_t i = 0; i < result.spans.size(); ++i) {
    const Impl::Planned& span = s.in_flight[i];
    require(result.spans[i].request == span.entry->id, span.entry->id, "got another's result");
    if (!s.accept(span, result.spans[i])) continue;
    s.end(*span.entry);
    ++finished;
  }
  s.in_flight.clear();
  s.counters.finished += static_cast<std::uint64_t>(finished);
  s.finish_rate.add(result.seconds, finished);
}

void Scheduler::Impl::set_paused(RequestId id, bool value) {
  const auto found = entries.find(id);
  if (found == entries.end() || std::exchange(found->second.paused, value) == value) return;
  paused += value ? 1 : -1;
}

// Every decode row gets the page for its next token; when there is none left, somebody is preempted.
void Scheduler::Impl::grow_decodes(TimePoint now, StepPlan& out) {
  scratch = running;  // preempting changes `running`
  for (SchedEntry* entry : scratch) {
    while (entry->active() && entry->decoding && !pool.reserve(entry->sequence, entry->num_tokens())) {
      // The only active request is never the victim: alone it fits, so paused ones hold what it lacks.
      SchedEntry* victim =
          num_active() > 1 ? choose_victim(running, pool) : choose_paused_victim(running, pool);
      require(victim != nullptr, entry->id, "finds no page and nobody to preempt");
      preempt(*victim, entry->id, now, out);
    }
  }
}

// In queue order, without overtaking: a long prompt at the front gets the next pages that come free.
void Scheduler::Impl::admit(TimePoint now, StepPlan& out) {
  while (SchedEntry* next = queue.front()) {
    const bool has_slot = running.size() < static_cast<std::size_t>(slots);
    if (has_slot && fits(*next)) {
      start(*next);
      out.admitted.push_back(next->id);
      continue;
    }
    out.blocked = has_slot ? QueueBlock::kPages : QueueBlock::kSlots;
    // What nobody reads must not stop the others: paused requests give up slots, and pages if nothing else
    // runs.
    if (has_slot && num_active() > 0) return;
    SchedEntry* victim = choose_paused_victim(running, pool);
    if (victim == nullptr) return;
    preempt(*victim, next->id, now, out);
    out.blocked = QueueBlock::kNothing;
  }
}

bool Scheduler::Impl::fits(const SchedEntry& entry) {
  std::int32_t spare = pool.available();
  for (const SchedEntry* other : running) {
    const auto held = static_cast<std::int32_t>(other->sequence.pages().size());
    if (other->active()) spare -= std::min(kHeadroomPages, KvPool::pages_for(other->max_tokens) - held);
  }
  if (num_active() > 0 && blocked.id == entry.id && spare <= blocked.spare_pages) return false;
  const PrefixHit hit = pool.peek_prefix(entry.tokens, entry.cache_salt);
  const std::int32_t needed = KvPool::pages_for(entry.num_tokens() - hit.tokens) + hit.cached_pages;
  if (needed <= spare) return true;
  blocked = {entry.id, spare};
  return false;
}

void Scheduler::Impl::start(SchedEntry& entry) {
  queue.remove(entry);
  entry.sequence = pool.open(entry.tokens, entry.cache_salt);
  require(pool.reserve(entry.sequence, entry.num_tokens()), entry.id, "was admitted without pages");
  entry.running = true;
  running.push_back(&entry);
  if (entry.preempted) return;
  entry.admission = ++admissions;
  entry.cached_prompt_tokens = entry.sequence.committed_tokens();
  ++counters.admitted;
  counters.prompt_tokens += static_cast<std::uint64_t>(entry.prompt_tokens);
  counters.cached_prompt_tokens += static_cast<std::uint64_t>(entry.cached_prompt_tokens);
}

// By recompute: what it sampled becomes part of its prompt; its full pages stay cached until they are needed.
void Scheduler::Impl::preempt(SchedEntry& victim, RequestId for_whom, TimePoint now, StepPlan& out) {
  stop(victim);
  victim.preempted = true;
  victim.decoding = false;
  queue.push(victim, now);
  out.preempted.push_back(victim.id);
  out.preempted_for.push_back(for_whom);
  ++counters.preemptions;
}

void Scheduler::Impl::plan_decodes(StepPlan& out) {
  for (SchedEntry* entry : running) {
    if (entry->active() && entry->decoding) plan_span(*entry, 1, out);
  }
  out.decode_rows = out.total_tokens;
}

void Scheduler::Impl::plan_prefills(StepPlan& out) {
  scratch.clear();
  for (SchedEntry* entry : running) {
    if (!entry->active() || entry->decoding) continue;
    const std::int32_t gained = pool.extend_prefix(entry->sequence, entry->tokens);
    if (!entry->preempted) {
      entry->cached_prompt_tokens += gained;
      counters.cached_prompt_tokens += static_cast<std::uint64_t>(gained);
    }
    scratch.push_back(entry);
  }
  split_prefill_budget(config.prefill_order, scratch, config.token_budget - out.total_tokens, pool, chunks);
  for (const PrefillChunk& chunk : chunks) plan_span(*chunk.entry, chunk.tokens, out);
}

void Scheduler::Impl::plan_span(SchedEntry& entry, std::int32_t count, StepPlan& out) {
  const std::size_t index = in_flight.size();
  if (index == out.spans.size()) out.spans.emplace_back();
  PlannedSpan& span = out.spans[index];
  span.request = entry.id;
  span.start = entry.sequence.committed_tokens();
  span.count = count;
  const std::int32_t end = span.start + count;
  span.samples = end == entry.num_tokens();
  const auto pages = entry.sequence.pages().first(static_cast<std::size_t>(KvPool::pages_for(end)));
  span.pages.resize(pages.size());  // unlike assign(), grows by more than it must
  std::copy(pages.begin(), pages.end(), span.pages.begin());
  out.total_tokens += count;
  in_flight.push_back({&entry, end, span.samples});
}

// True if the request ends with this span. A failed span (finished, no token) leaves no KV to reuse.
bool Scheduler::Impl::accept(const Planned& span, const SpanResult& result) {
  SchedEntry& entry = *span.entry;
  if (result.finished && result.token < 0) return true;
  require((result.token >= 0) == span.samples, entry.id, "has a token too many or too few");
  pool.commit(entry.sequence, entry.tokens, span.end);
  if (!span.samples) return result.finished;
  entry.tokens.push_back(result.token);
  entry.decoding = true;
  ++counters.generated_tokens;
  return result.finished || entry.num_tokens() == entry.max_tokens;
}

void Scheduler::Impl::stop(SchedEntry& entry) {
  pool.close(std::move(entry.sequence));
  entry.running = false;
  std::erase(running, &entry);
}

void Scheduler::Impl::end(SchedEntry& entry) {
  if (entry.running) {
    stop(entry);
  } else {
    queue.remove(entry);
  }
  if (entry.paused) --paused;
  entries.erase(entry.id);
}

bool Scheduler::idle() const { return impl_->entries.empty(); }

SchedulerStats Scheduler::stats() const {
  const Impl& s = *impl_;
  SchedulerStats stats = s.counters;
  stats.running = s.num_active();
  stats.paused = s.paused;
  stats.waiting = static_cast<std::int32_t>(s.entries.size()) - stats.running - stats.paused;
  stats.kv = s.pool.stats();
  return stats;
}

std::int32_t Scheduler::cached_prefix(RequestId id) const {
  const auto found = impl_->entries.find(id);
  return found == impl_->entries.end() ? 0 : found->second.cached_prompt_tokens;
}

std::vector<RequestId> Scheduler::running(std::size_t most) const {
  std::vector<RequestId> ids;
  for (const SchedEntry* entry : impl_->running) {
    if (ids.size() == most) break;
    ids.push_back(entry->id);
  }
  return ids;
}

void Scheduler::check() const {
  const Impl& s = *impl_;
  if (s.running.size() + s.queue.size() != s.entries.size() ||
      s.running.size() > static_cast<std::size_t>(s.slots)) {
    fail(fmt::format("{} running (of {}) + {} waiting, but {} requests", s.running.size(), s.slots,
                     s.queue.size(), s.entries.size()));
  }
  check_entries(s.entries, s.running, s.pool);
  s.pool.check();
}

}  // namespace mlxs
