// What GET /v1/scheduler/stats says of one model, and of how the device's memory, copies and steps are
// managed. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include "mlxs/engine.h"
#include "telemetry/sliding_rate.h"

namespace mlxs {

nlohmann::json scheduler_stats_json(const EngineSchedulerStats& stats);
// Of the model in the last 5, 30 and 60 seconds; zeros, if it is not among them.
nlohmann::json throughput_json(std::span<const ThroughputNow> all, std::string_view model);
// A part that is off says only that.
nlohmann::json metal_stats_json(const MetalOptimizationsStats& stats);

}  // namespace mlxs
