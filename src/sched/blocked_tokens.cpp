// Why tokens that could be computed are not part of the step: counted by what they lack. O(running).
#include "sched/scheduler_impl.h"

namespace mlxs {

void Scheduler::Impl::count_blocked(const StepPlan& out) {
  const auto at = [this](TokenBlock block) -> std::int64_t& {
    return counters.blocked_tokens[static_cast<std::size_t>(block)];
  };
  counters.blocked_tokens = {};
  if (queue.front() == nullptr) {
    at(TokenBlock::kPaused) = queue.tokens();
  } else if (out.held_until) {
    at(TokenBlock::kWindow) = queue.tokens();
  } else {
    at(out.blocked == QueueBlock::kPages ? TokenBlock::kPages : TokenBlock::kSlots) = queue.tokens();
  }
  std::int64_t prefill = 0;
  for (const SchedEntry* entry : running) {
    if (entry->paused) {
      at(TokenBlock::kPaused) += entry->remaining();
    } else if (!entry->decoding) {
      prefill += entry->remaining();
    }
  }
  at(TokenBlock::kBudget) = prefill - (out.total_tokens - out.decode_rows);
}

}  // namespace mlxs
