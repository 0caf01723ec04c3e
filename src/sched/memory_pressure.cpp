// Steps that the device has no memory for: smaller ones, for as long as it takes.
#include <algorithm>

#include "sched/invariants.h"
#include "sched/scheduler_impl.h"
#include "sched/victim.h"

namespace mlxs {

void Scheduler::Impl::bound_steps(std::int32_t tokens) {
  most_tokens = std::min(tokens, config.token_budget);
  slots = std::min(config.max_running, most_tokens);
  calm_steps = 0;
}

void Scheduler::Impl::step_ran() {
  if (most_tokens < config.token_budget && ++calm_steps == kCalmSteps)
    bound_steps(most_tokens > config.token_budget / 2 ? config.token_budget : 2 * most_tokens);
}

bool Scheduler::shrink(TimePoint now, StepPlan& plan) {
  Impl& s = *impl_;
  require(!s.in_flight.empty() && s.behind.empty(), 0, "has no step to give up, or one behind it");
  plan.preempted.clear();
  plan.preempted_for.clear();
  if (plan.total_tokens <= 1) return false;
  s.in_flight.clear();
  for (SchedEntry* entry : s.running) s.pool.give_back_window(entry->sequence);
  s.copies = 0;
  s.bound_steps(plan.total_tokens / 2);
  while (s.running.size() > static_cast<std::size_t>(s.slots)) {
    SchedEntry* victim = choose_paused_victim(s.running, s.pool);
    if (victim == nullptr) victim = choose_victim(s.running, s.pool);
    if (victim == nullptr) victim = s.running.back();
    s.requeue(*victim, now);  // without its pages: copies to the host belong to a plan
    plan.preempted.push_back(victim->id);
    plan.preempted_for.push_back(victim->id);
  }
  return true;
}

}  // namespace mlxs
