// What operators and orchestrators ask: GET /health, /health/live, /health/ready, /metrics, /v1/flight,
// /v1/scheduler/stats. Where keys are asked for, liveness is open to everybody; metrics and stats are an
// admin's. The handlers never block on the engine; engine outlives the router.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "mlxs/engine.h"
#include "serve/router.h"
#include "telemetry/sliding_rate.h"

namespace mlxs {

struct OperationsSources {
  std::function<std::string()> metrics;                    // Prometheus text; null: no such route
  std::function<bool()> draining;                          // ready no more
  std::function<std::string()> flight;                     // what GET /v1/flight answers; null: no such route
  std::function<std::vector<ThroughputNow>()> throughput;  // null: nobody counts it
};

void add_operations_routes(Router& router, Engine& engine, OperationsSources sources);

}  // namespace mlxs
