// What the parts of metal_optimizations did, in the Prometheus text format, under the names that dashboards
// for them know. Pure.
#pragma once

#include <string>

#include "mlxs/metal_optimizations.h"

namespace mlxs {

std::string metal_metrics(const MetalOptimizationsStats& stats);  // of the parts that are on; empty: none is

}  // namespace mlxs
