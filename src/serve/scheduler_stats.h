// What GET /v1/scheduler/stats says of one model. Pure.
#pragma once

#include <nlohmann/json.hpp>

#include "mlxs/engine.h"

namespace mlxs {

nlohmann::json scheduler_stats_json(const EngineSchedulerStats& stats);

}  // namespace mlxs
