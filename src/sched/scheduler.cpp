#include "sched/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "mlxs/error.h"
#include "sched/invariants.h"
#include "sched/scheduler_impl.h"

namespace mlxs {
namespace {

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
  if (config.swap_pages < 0) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("swap_pages = {} is below 0", config.swap_pages),
                "0 turns swapping off", "swap_pages");
  }
  if (config.pinned_pages < 0) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("pinned_pages = {} is below 0", config.pinned_pages),
                "0 turns pinning off", "pinned_pages");
  }
  const auto& [enabled, prompt_weight, output_weight] = config.fairness;
  if (!(prompt_weight > 0 && output_weight > 0)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("fairness weights {} and {} must be above 0", prompt_weight, output_weight),
                "1 and 2 are the default", "fairness");
  }
}

}  // namespace

Scheduler::Scheduler(SchedulerConfig config, KvPool& pool) {
  validate(config);
  impl_ = std::make_unique<Impl>(config, pool);
}

Scheduler::~Scheduler() {
  for (SchedEntry* entry : impl_->running) impl_->pool.close(std::move(entry->sequence));
}

std::optional<Refusal> Scheduler::add(SchedRequest request, std::optional<TimePoint> given_now) {
  Impl& s = *impl_;
  require(!request.prompt.empty(), request.id, "has an empty prompt");
  require(request.max_new_tokens >= 1, request.id, "may not generate anything");
  require(request.tenant_weight > 0, request.id, "belongs to a tenant without weight");
  require(!s.entries.contains(request.id), request.id, "was added before and still lives");
  const std::int64_t tokens = static_cast<std::int64_t>(request.prompt.size()) + request.max_new_tokens;
  if (tokens > s.config.max_context || tokens > std::int64_t{s.pool.stats().total} * kPageTokens) {
    ++s.counters.refused;
    return Refusal{.request = request.id, .cause = RefusalCause::kTooLong};
  }
  SchedEntry* loser = nullptr;
  if (s.queue.size() >= static_cast<std::size_t>(s.config.max_queue_depth)) {
    loser = s.least_entitled(request);
    if (loser == nullptr) return s.queue_full(request.id);
  }
  SchedEntry& entry = s.entries[request.id];
  entry.id = request.id;
  entry.prompt_tokens = static_cast<std::int32_t>(request.prompt.size());
  entry.max_tokens = static_cast<std::int32_t>(tokens);
  entry.tokens = std::move(request.prompt);
  entry.cache_salt = request.cache_salt;
  entry.pins = std::move(request.pins);
  entry.priority = request.priority;
  entry.tier = static_cast<int>(request.priority);
  entry.slo = request.slo;
  entry.tenant = s.config.fairness.enabled ? request.tenant : 0;
  entry.tenant_weight = s.config.fairness.enabled ? request.tenant_weight : 1;
  entry.arrival = request.arrival;
  entry.uncached_tokens = entry.prompt_tokens - s.pool.peek_prefix(entry.tokens, entry.cache_salt).tokens;
  if (auto refusal = s.promise(entry, given_now.value_or(request.arrival))) {
    s.entries.erase(entry.id);
    return refusal;
  }
  if (loser != nullptr) s.displace(*loser);
  s.queue.push(entry, request.arrival);
  return std::nullopt;
}

Refusal Scheduler::Impl::queue_full(RequestId id) {
  ++counters.refused;
  return {.request = id, .cause = RefusalCause::kQueueFull, .retry_after_s = finish_rate.seconds_to_next()};
}

SchedEntry* Scheduler::Impl::least_entitled(const SchedRequest& request) const {
  const bool fair = config.fairness.enabled;
  const auto tier = static_cast<int>(request.priority);
  return queue.least_entitled({tier, tier, fair ? request.tenant : 0}, fair ? request.tenant_weight : 1);
}

void Scheduler::Impl::displace(SchedEntry& entry) {
  displaced.push_back(queue_full(entry.id));
  ++counters.displaced;
  end(entry);
}

void Scheduler::cancel(RequestId id) {
  Impl& s = *impl_;
  std::erase_if(s.displaced, [id](const Refusal& refusal) { return refusal.request == id; });
  const auto found = s.entries.find(id);
  if (found == s.entries.end()) return;
  s.end(found->second);
}

void Scheduler::finish(RequestId id) {
  Impl& s = *impl_;
  const auto found = s.entries.find(id);
  if (found == s.entries.end()) return;
  s.count_outcome(found->second);
  ++s.counters.finished;
  cancel(id);
}

void Scheduler::drop_cache() {
  impl_->pins.clear();
  impl_->pool.drop_cache();
}

void Scheduler::pause(RequestId id) { impl_->set_paused(id, true); }
void Scheduler::resume(RequestId id) { impl_->set_paused(id, false); }

void Scheduler::plan(TimePoint now, StepPlan& out) {
  Impl& s = *impl_;
  if (!s.in_flight.empty()) fail(fmt::format("step {} was planned and not committed", s.step_in_flight));
  out.clear();
  out.refused.assign(s.displaced.begin(), s.displaced.end());
  s.displaced.clear();
  s.step_start = now;
  s.pool.advance(now);
  s.pins.expire(now);
  s.swap.begin_step();
  s.drop_hopeless(now, out);
  s.grow_decodes(now, out);
  s.admit(now, out);
  s.plan_decodes(out);
  s.plan_prefills(out);
  s.copies = static_cast<std::int32_t>(out.swap_out.size() + out.swap_in.size());
  s.count_blocked(out);
  out.spans.resize(s.in_flight.size());
  if (!out.empty()) out.step = s.step_in_flight = ++s.counters.steps;
}

void Scheduler::commit(const StepResult& result) {
  Impl& s = *impl_;
  if (s.in_flight.empty() || result.step != s.step_in_flight || result.spans.size() != s.in_flight.size()) {
    fail(fmt::format("step {} of {} spans committed, {} of {} planned", result.step, result.spans.size(),
                     s.step_in_flight, s.in_flight.size()));
  }
  const TimePoint ended = s.step_start + from_seconds(result.seconds);
  int finished = 0;
  std::int32_t tokens = 0;
  for (std::size_t i = 0; i < result.spans.size(); ++i) {
    const Impl::Planned span = s.in_flight[i];  // ending the request makes the span void
    require(result.spans[i].request == span.request, span.request, "got another's result");
    tokens += span.count;
    if (span.entry == nullptr) {
      ++s.counters.void_rows;
      continue;
    }
    if (!s.accept(span, result.spans[i], ended)) continue;
    if (result.spans[i].token >= 0) s.count_outcome(*span.entry);
    s.end(*span.entry);
    ++finished;
  }
  s.in_flight.clear();
  if (!s.behind.empty()) {
    std::swap(s.in_flight, s.behind);
    ++s.step_in_flight;
    s.step_start = std::max(s.ahead_start, ended);
  }
  s.counters.finished += static_cast<std::uint64_t>(finished);
  s.finish_rate.add(result.seconds, finished);
  s.cost.add(tokens, result.seconds);
  s.swap.copied(std::exchange(s.copies, 0), result.copy_seconds);
  s.window.step_took(result.seconds);
  s.step_ran();
}

bool Scheduler::idle() const { return impl_->entries.empty() && impl_->displaced.empty(); }

SchedulerStats Scheduler::stats() const {
  const Impl& s = *impl_;
  SchedulerStats stats = s.counters;
  stats.running = s.num_active();
  stats.paused = s.paused;
  stats.waiting = static_cast<std::int32_t>(s.entries.size()) - stats.running - stats.paused;
  stats.slo = s.slo;
  stats.window = s.window.stats();
  stats.slo.promoted += s.queue.rescued();
  stats.token_budget = s.budget;
  stats.step_fixed_s = s.cost.fixed();
  stats.step_token_s = s.cost.per_token();
  stats.swap_slots = s.swap.total();
  stats.swap_slots_used = s.swap.used();
  stats.swap_page_s = s.swap.page_seconds();
  stats.kv = s.pool.stats();
  stats.pins = s.pins.stats();
  // As requests see it: what a preempted one looks up again is no query of a client's.
  stats.kv.prefix_queries = s.counters.prompt_tokens;
  stats.kv.prefix_hits = s.counters.cached_prompt_tokens;
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

AdmittedBy Scheduler::admitted_by(RequestId id) const {
  const auto found = impl_->entries.find(id);
  if (found == impl_->entries.end()) return AdmittedBy::kInTurn;
  const SchedEntry& entry = found->second;
  return entry.preempted  ? AdmittedBy::kReturned
         : entry.overtook ? AdmittedBy::kOvertook
         : entry.rescued  ? AdmittedBy::kRescued
                          : AdmittedBy::kInTurn;
}

PrefixMiss Scheduler::prefix_miss(RequestId id) const {
  const auto found = impl_->entries.find(id);
  return found == impl_->entries.end() ? PrefixMiss{} : found->second.prefix_miss;
}

void Scheduler::check() const {
  const Impl& s = *impl_;
  if (s.running.size() + s.queue.size() != s.entries.size() ||
      s.running.size() > static_cast<std::size_t>(s.slots)) {
    fail(fmt::format("{} running (of {}) + {} waiting, but {} requests", s.running.size(), s.slots,
                     s.queue.size(), s.entries.size()));
  }
  check_entries(s.entries, s.running, s.pool, s.pins);
  std::int32_t swapped = 0;
  for (const auto& [id, entry] : s.entries) swapped += static_cast<std::int32_t>(entry.swapped.size());
  if (swapped != s.swap.used())
    fail(fmt::format("{} pages are swapped out, {} slots used", swapped, s.swap.used()));
  s.pool.check();
}

}  // namespace mlxs
