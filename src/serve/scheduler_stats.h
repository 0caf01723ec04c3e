// What GET /v1/scheduler/stats says of one model, and of how the device's memory, copies and steps are
// managed. Pure.
#pragma once

#include <nlohmann/json.hpp>

#include "mlxs/engine.h"

namespace mlxs {

nlohmann::json scheduler_stats_json(const EngineSchedulerStats& stats);
// A part that is off says only that.
nlohmann::json metal_stats_json(const MetalOptimizationsStats& stats);

}  // namespace mlxs
