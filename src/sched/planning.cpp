// The step loop's control half: age → grow decodes (preempting) → admit → plan decodes → plan prefills.
#include <algorithm>
#include <utility>

#include "sched/invariants.h"
#include "sched/scheduler_impl.h"
#include "sched/victim.h"

namespace mlxs {
namespace {

// Pages left free for each running request at an admission (fewer if it cannot grow by as many): room to grow
// before somebody has to be preempted. Simulated at 10x overload with answers of 500 tokens: 1 page
// recomputes 29 % of all tokens, 4 pages 9 % at the best throughput; 8 pages leave slots empty.
constexpr std::int32_t kHeadroomPages = 4;

// Looked at in a step while the first request lacks pages.
constexpr std::size_t kMostOvertaking = 8;

// Of a target that a step may use up: predictions err, and publishing tokens takes time too.
constexpr double kTargetShare = 0.9;

// Of the largest step that was measured: what the cost of steps is trusted to say something of.
constexpr double kTrustedGrowth = 2;

// Of a step's seconds: where the fixed ones are no more, more tokens gain little and only delay answers.
constexpr double kFixedShare = 0.1;

// GPUs take the rows of large products in tiles of so many, or a divisor of it.
constexpr std::int32_t kRoundRows = 256;

}  // namespace

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
      if (victim == nullptr && pins.give_up_oldest()) continue;
      require(victim != nullptr, entry->id, "finds no page and nobody to preempt");
      preempt(*victim, entry->id, now, out);
    }
  }
}

// In queue order. Who lacks pages is overtaken by smaller ones for a while, then gets the next that come
// free.
void Scheduler::Impl::admit(TimePoint now, StepPlan& out) {
  while (SchedEntry* next = queue.front()) {
    const bool has_slot = running.size() < static_cast<std::size_t>(slots);
    if (has_slot && fits(*next)) {
      if (out.admitted.empty() && !next->preempted &&
          !window.open(now, static_cast<int>(queue.size()), static_cast<int>(running.size()), next->tier == 0,
                       next->arrival)) {
        out.held_until = window.opens_at();
        return;
      }
      start(*next, now, out);
      out.admitted.push_back(next->id);
      continue;
    }
    out.blocked = has_slot ? QueueBlock::kPages : QueueBlock::kSlots;
    // What nobody reads must not stop the others: paused requests give up slots, and pages if nothing else
    // runs.
    if (has_slot && num_active() > 0) return overtake(*next, now, out);
    SchedEntry* victim = choose_paused_victim(running, pool);
    if (victim == nullptr && has_slot && pins.give_up_oldest()) continue;
    if (victim == nullptr) return;
    preempt(*victim, next->id, now, out);
    out.blocked = QueueBlock::kNothing;
  }
}

// A few that fit start before `first`, which does not. Nobody is overtaken for longer than an ageing interval
// since it lacked pages first, nor who was preempted: it has waited twice.
void Scheduler::Impl::overtake(SchedEntry& first, TimePoint now, StepPlan& out) {
  const auto may_overtake = [&](SchedEntry& entry) {
    if (entry.lacks_pages_since == TimePoint::max()) entry.lacks_pages_since = now;
    return now - entry.lacks_pages_since < config.aging_interval;
  };
  if (first.preempted || !may_overtake(first)) return;
  queue.beside(first, kMostOvertaking, scratch);
  std::optional<TenantId> barred;
  for (SchedEntry* entry : scratch) {
    if (running.size() >= static_cast<std::size_t>(slots)) return;
    if (entry->tenant == barred) continue;
    const std::int32_t spare = spare_pages();
    if (KvPool::pages_for(entry->uncached_tokens) <= spare && pages_needed(*entry) <= spare &&
        has_places(*entry)) {
      entry->overtook = true;
      start(*entry, now, out);
      out.admitted.push_back(entry->id);
      ++counters.overtakings;
    } else if (!may_overtake(*entry)) {
      barred = entry->tenant;
    }
  }
}

// Less what running requests will need soon.
std::int32_t Scheduler::Impl::spare_pages() const {
  std::int32_t spare = pool.available();
  for (const SchedEntry* other : running) {
    const auto held = static_cast<std::int32_t>(other->sequence.pages().size());
    if (other->active()) spare -= std::min(kHeadroomPages, KvPool::pages_for(other->max_tokens) - held);
  }
  return spare;
}

std::int32_t Scheduler::Impl::pages_needed(const SchedEntry& entry) const {
  const PrefixHit hit = pool.peek_prefix(entry.tokens, entry.cache_salt);
  return KvPool::pages_for(entry.num_tokens() - hit.tokens) + hit.cached_pages;
}

bool Scheduler::Impl::fits(const SchedEntry& entry) {
  if (!has_places(entry)) return false;
  const std::int32_t spare = spare_pages();
  if (num_active() > 0 && blocked.id == entry.id && spare <= blocked.spare_pages) return false;
  if (pages_needed(entry) <= spare) return true;
  blocked = {entry.id, spare};
  return false;
}

void Scheduler::Impl::start(SchedEntry& entry, TimePoint now, StepPlan& out) {
  queue.remove(entry);
  entry.sequence = pool.open(entry.tokens, entry.cache_salt);
  pins.used_by(entry.sequence, now);
  pool.release_passed(entry.sequence);
  require(pool.reserve(entry.sequence, entry.num_tokens()), entry.id, "was admitted without pages");
  entry.running = true;
  running.push_back(&entry);
  entry.tier = entry.rescued ? std::min(kRescueTier, entry.asked_tier()) : entry.asked_tier();
  swap_in(entry, out);
  if (entry.preempted) {
    entry.spared_until = entry.num_tokens() + kPageTokens;
    return;
  }
  entry.admission = ++admissions;
  entry.risk_at = entry.hopeless_at = TimePoint::max();
  entry.cached_prompt_tokens = entry.sequence.committed_tokens();
  entry.prefix_miss = entry.sequence.miss();
  ++counters.admitted;
  counters.prompt_tokens += static_cast<std::uint64_t>(entry.prompt_tokens);
  counters.cached_prompt_tokens += static_cast<std::uint64_t>(entry.cached_prompt_tokens);
  // At once and not when it is computed: else who was served least would get every free slot.
  queue.share().charge(entry.tenant, config.fairness.prompt_weight * entry.remaining());
}

// What it sampled becomes part of its prompt; its full pages stay cached until they are needed.
void Scheduler::Impl::preempt(SchedEntry& victim, RequestId for_whom, TimePoint now, StepPlan& out) {
  swap_out(victim, out);
  requeue(victim, now);
  out.preempted.push_back(victim.id);
  out.preempted_for.push_back(for_whom);
}

void Scheduler::Impl::requeue(SchedEntry& victim, TimePoint now) {
  stop(victim);
  victim.preempted = true;
  victim.decoding = false;
  queue.push(victim, now);
  ++counters.preemptions;
}

void Scheduler::Impl::plan_decodes(StepPlan& out) {
  for (SchedEntry* entry : running) {
    if (entry->active() && entry->decoding) plan_span(*entry, 1, out);
  }
  out.decode_rows = out.total_tokens;
}

// As many tokens as fit the strictest target of those who wait for their next token, but always some of a
// prompt.
std::int32_t Scheduler::Impl::choose_budget(std::int32_t decode_rows) const {
  if (decode_rows == 0) return most_tokens;
  const std::int32_t least = decode_rows + kPageTokens;
  const auto within = [&](Duration target) {
    return (kTargetShare * to_seconds(target) - cost.fixed()) / cost.per_token();
  };
  std::int32_t most = most_tokens;
  if (config.sure_budget > 0) {
    const std::int32_t sure = std::max(config.sure_budget, least);
    double tokens = sure;
    if (cost.per_token() > 0) {
      const double paying = cost.fixed() / cost.per_token() / kFixedShare;
      tokens =
          std::max(tokens, std::min({within(config.large_step), paying, kTrustedGrowth * cost.largest()}));
    }
    most = static_cast<std::int32_t>(std::min<double>(most, tokens));
    if (const std::int32_t round = most / kRoundRows * kRoundRows; round >= sure) most = round;
  }
  Duration target = config.target_itl > Duration::zero() ? config.target_itl : Duration::max();
  for (const SchedEntry* entry : running) {
    const bool counts = entry->active() && entry->decoding && entry->slo.tpot > Duration::zero();
    if (counts) target = std::min(target, entry->slo.tpot);
  }
  if (target == Duration::max() || cost.per_token() <= 0) return most;
  return static_cast<std::int32_t>(std::min<double>(most, std::max<double>(within(target), least)));
}

void Scheduler::Impl::plan_prefills(StepPlan& out) {
  budget = choose_budget(out.decode_rows);
  const bool large = config.sure_budget > 0 && budget > config.sure_budget;
  scratch.clear();
  for (SchedEntry* entry : running) {
    if (!entry->active() || entry->decoding) continue;
    std::int32_t gained = pool.extend_prefix(entry->sequence, entry->tokens);
    gained += copy_begun(*entry, out);
    if (!entry->preempted) {
      entry->cached_prompt_tokens += gained;
      counters.cached_prompt_tokens += static_cast<std::uint64_t>(gained);
      queue.share().charge(entry->tenant, -config.fairness.prompt_weight * gained);
    }
    scratch.push_back(entry);
  }
  split_prefill_budget(config.prefill_order, scratch, budget - out.total_tokens, large, pool, queue.share(),
                       chunks);
  for (const PrefillChunk& chunk : chunks) plan_span(*chunk.entry, chunk.tokens, out);
}

// What of the entry's last page a copy of another spares it.
std::int32_t Scheduler::Impl::copy_begun(SchedEntry& entry, StepPlan& out) {
  const std::int32_t committed = entry.sequence.committed_tokens();
  std::int32_t gained = 0;
  std::optional<PageBranch> branch = branching.branch(entry);
  if (branch) {
    gained = entry.remaining() - 1;
  } else if (const auto begun = pool.closest_page(entry.sequence, entry.tokens)) {
    gained = begun->tokens;
    branch =
        PageBranch{begun->page, entry.sequence.pages()[static_cast<std::size_t>(committed / kPageTokens)]};
  }
  if (branch) branch = branch_of(entry, *branch, gained);
  if (!branch) return 0;
  out.branches.push_back(*branch);
  pool.commit(entry.sequence, entry.tokens, committed + gained);
  ++counters.branched_pages;
  return gained;
}

void Scheduler::Impl::plan_span(SchedEntry& entry, std::int32_t count, StepPlan& out) {
  const std::size_t index = in_flight.size();
  if (index == out.spans.size()) out.spans.emplace_back();
  PlannedSpan& span = out.spans[index];
  span.request = entry.id;
  span.start = entry.sequence.committed_tokens();
  span.count = count;
  span.fed = -1;
  const std::int32_t end = span.start + count;
  span.samples = end == entry.num_tokens();
  give_window(entry, span.start, end);
  copy_pages(entry, end, span);
  out.total_tokens += count;
  in_flight.push_back({&entry, entry.id, end, count, span.samples});
}

void Scheduler::Impl::copy_pages(const SchedEntry& entry, std::int32_t tokens, PlannedSpan& span) const {
  const auto pages = entry.sequence.pages().first(static_cast<std::size_t>(KvPool::pages_for(tokens)));
  span.pages.resize(pages.size());  // unlike assign(), grows by more than it must
  std::copy(pages.begin(), pages.end(), span.pages.begin());
  // Nobody looks at what the window left behind, but addresses may be computed from it.
  const auto passed = static_cast<std::size_t>(entry.sequence.passed());
  if (passed > 0) std::fill_n(span.pages.begin(), passed, pages[passed]);
  fill_window(entry, span);
}

// True if the request ends with this span. A failed span (finished, no token) leaves no KV to reuse.
bool Scheduler::Impl::accept(const Planned& span, const SpanResult& result, TimePoint now) {
  SchedEntry& entry = *span.entry;
  if (result.finished && result.token < 0) return true;
  require((result.token >= 0) == span.samples, entry.id, "has a token too many or too few");
  pool.commit(entry.sequence, entry.tokens, span.end);
  pool.release_passed(entry.sequence);
  if (!span.samples) return result.finished;
  entry.tokens.push_back(result.token);
  entry.decoding = true;
  if (entry.num_tokens() == entry.prompt_tokens + 1) {
    entry.first_token = now;
    pin(entry, now);
    if (!result.finished) branching.offer(entry);
    if (std::exchange(entry.rescued, false)) entry.tier = entry.asked_tier();
  }
  entry.last_token = now;
  ++counters.generated_tokens;
  queue.share().charge(entry.tenant, config.fairness.output_weight);
  return result.finished || entry.num_tokens() == entry.max_tokens;
}

void Scheduler::Impl::pin(const SchedEntry& entry, TimePoint now) {
  for (const PinRequest& wanted : entry.pins) {
    const std::int32_t tokens = std::min(wanted.tokens, entry.prompt_tokens);
    if (tokens >= kPageTokens) pins.pin(entry.tokens, tokens, entry.cache_salt, now, wanted.ttl);
  }
}

void Scheduler::Impl::stop(SchedEntry& entry) {
  branching.withdraw(entry);
  pool.keep_tail(entry.sequence, entry.tokens);
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
  drop_swapped(entry);
  forget_spans(entry);
  if (entry.paused) --paused;
  entries.erase(entry.id);
}

}  // namespace mlxs
