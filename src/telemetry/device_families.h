// What metal_optimizations did, as metrics: only of the parts that are on. Private to telemetry/.
#pragma once

#include "mlxs/metal_optimizations.h"
#include "telemetry/family_builder.h"

namespace mlxs {

void add_device_families(FamilyBuilder& out, const MetalOptimizationsStats& stats);

}  // namespace mlxs
