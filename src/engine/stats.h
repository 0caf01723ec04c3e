// The scheduler's and the pool's statistics as the public API has them, under the names that clients see.
// Pure.
#pragma once

#include <string_view>

#include "mlxs/engine.h"
#include "sched/scheduler.h"

namespace mlxs {

EngineSchedulerStats engine_stats(std::string_view model, const SchedulerStats& stats);
std::string_view miss_reason_name(MissReason reason);  // "evicted" …; "" for kNone

}  // namespace mlxs
