// A step that is planned while the one before is under way. Answers go on by one token each, whose value the
// device knows first; everything else (prompts, admissions, preemptions, copies of pages) is decided when the
// step under way is committed.
#include <algorithm>

#include "sched/invariants.h"
#include "sched/scheduler_impl.h"

namespace mlxs {

void StepPlan::clear() {
  step = 0;
  swap_out.clear();
  swap_in.clear();
  branches.clear();
  preempted.clear();
  preempted_for.clear();
  admitted.clear();
  refused.clear();
  blocked = QueueBlock::kNothing;
  held_until.reset();
  total_tokens = decode_rows = 0;
}

void Scheduler::Impl::forget_spans(const SchedEntry& entry) {
  for (std::vector<Planned>* step : {&in_flight, &behind}) {
    const auto found = std::ranges::find(*step, &entry, &Planned::entry);
    if (found != step->end()) found->entry = nullptr;
  }
}

// Whether the next step is known but for its tokens.
bool Scheduler::Impl::goes_ahead() const {
  if (!displaced.empty()) return false;
  if (queue.front() != nullptr) {  // a slot, or one of a paused request, may be its own
    if (running.size() < static_cast<std::size_t>(slots)) return false;
    if (!std::ranges::all_of(running, &SchedEntry::active)) return false;
  }
  std::int32_t going = 0, rows = 0, missing_pages = 0;
  for (const Planned& span : in_flight) {
    if (!span.samples) return false;
    if (span.entry == nullptr || span.entry->paused) continue;
    ++going;
    if (span.end + 1 == span.entry->max_tokens) {
      if (queue.front() != nullptr) return false;  // its place comes free
      continue;
    }
    ++rows;
    missing_pages += KvPool::pages_for(span.end + 1) -
                     std::min(KvPool::pages_for(span.end + 1),
                              static_cast<std::int32_t>(span.entry->sequence.pages().size()));
  }
  return rows > 0 && going == num_active() && missing_pages <= pool.available();
}

bool Scheduler::plan_ahead(TimePoint now, StepPlan& out) {
  Impl& s = *impl_;
  require(!s.in_flight.empty() && s.behind.empty(), 0, "has no step under way to plan behind, or did");
  s.pool.advance(now);
  s.pins.expire(now);
  if (!s.goes_ahead()) return false;
  out.clear();
  s.ahead_start = now;
  s.drop_hopeless(now, out);
  if (s.queue.front() != nullptr) out.blocked = QueueBlock::kSlots;
  for (std::size_t i = 0; i < s.in_flight.size(); ++i) {
    const Impl::Planned& before = s.in_flight[i];
    if (before.entry == nullptr || before.entry->paused || before.end + 1 == before.entry->max_tokens)
      continue;
    SchedEntry& entry = *before.entry;
    require(s.pool.reserve(entry.sequence, before.end + 1), entry.id, "was planned ahead without pages");
    const std::size_t index = s.behind.size();
    if (index == out.spans.size()) out.spans.emplace_back();
    PlannedSpan& span = out.spans[index];
    span.request = entry.id;
    span.start = before.end;
    span.count = 1;
    span.samples = true;
    span.fed = static_cast<std::int32_t>(i);
    s.give_window(entry, span.start, before.end + 1);
    s.copy_pages(entry, before.end + 1, span);
    s.behind.push_back({&entry, entry.id, before.end + 1, 1, true});
  }
  out.spans.resize(s.behind.size());
  out.total_tokens = out.decode_rows = static_cast<std::int32_t>(s.behind.size());
  s.count_blocked(out);
  out.step = ++s.counters.steps;
  ++s.counters.steps_ahead;
  return true;
}

void Scheduler::drop_ahead() {
  Impl& s = *impl_;
  require(!s.behind.empty(), 0, "has no step ahead to drop");
  s.behind.clear();
  --s.counters.steps;
  --s.counters.steps_ahead;
}

}  // namespace mlxs
