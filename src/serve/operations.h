// What operators and orchestrators ask: GET /health, /health/live, /health/ready, /metrics, /v1/flight,
// /v1/scheduler/stats. Where keys are asked for, liveness is open to everybody; metrics and stats are an
// admin's. The handlers never block on the engine; engine outlives the router.
#pragma once

#include <functional>
#include <string>

#include "mlxs/engine.h"
#include "serve/router.h"

namespace mlxs {

struct OperationsSources {
  std::function<std::string()> metrics;  // Prometheus text; null: no such route
  std::function<bool()> draining;        // ready no more
  std::function<std::string()> flight;   // what GET /v1/flight answers; null: no such route
};

void add_operations_routes(Router& router, Engine& engine, OperationsSources sources);

}  // namespace mlxs
