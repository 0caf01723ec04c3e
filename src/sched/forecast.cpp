#include "sched/forecast.h"

#include <algorithm>
#include <cmath>

namespace mlxs {

void count_running(const SchedEntry& running, const SchedEntry* oldest, int tier, Backlog& backlog) {
  if (!running.active()) return;
  if (running.decoding) {
    ++backlog.decode_rows;
    return;
  }
  const bool before =
      running.tier < tier || (running.tier == tier && running.remaining() <= backlog.own_tokens);
  if (before) {
    backlog.prefill_tokens += running.remaining();
  } else if (&running == oldest) {  // it takes as much of every step as the others together
    backlog.prefill_tokens += std::min(running.remaining(), backlog.own_tokens);
  }
}

double seconds_to_first_token(const Backlog& backlog, std::int32_t token_budget, const StepCost& cost,
                              const FinishRate& rate) {
  if (!cost.known()) return 0;
  const double room = std::max(1, token_budget - backlog.decode_rows);
  const auto seconds = [&](double tokens) {
    const double steps = std::ceil(tokens / room);
    return steps * cost.of(backlog.decode_rows) + tokens * cost.per_token();
  };
  // Others' prompts are computed while it waits for a place.
  const double waiting =
      std::max(seconds(static_cast<double>(backlog.prefill_tokens)), backlog.ends * rate.average());
  return waiting + seconds(backlog.own_tokens);
}

}  // namespace mlxs
