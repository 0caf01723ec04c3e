// The limits of a generation request, checked in one place before anything is queued.
// Pure; throws kInvalidArgument naming field, value and range.
#pragma once

#include "mlxs/engine.h"
#include "sched/scheduler.h"

namespace mlxs {

void validate(const GenerateParams& params, int vocabulary);
void validate(const EngineOptions& options);
// Options whose ranges are advice: a value outside is moved to the nearest inside and logged.
void clamp(EngineOptions& options);

// What of them is the scheduler's; the token budget is chosen (load_plan.h).
SchedulerConfig scheduler_config(const EngineOptions& options, int context_limit);
SchedRequest sched_request(const GenerateParams& params, const EngineOptions& options);

}  // namespace mlxs
