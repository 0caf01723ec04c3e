// A mixture of experts on the CPU: the router as an ordinary linear(), then every used expert's linear()s
// over its rows, side by side, then each row's weighted sum. The engine thread calls; scratch from the arena.
#pragma once

#include "backend/cpu/linear.h"
#include "backend/moe_routing.h"

namespace mlxs::cpu {

// in: [rows, hidden], its norm is spec.norm; y: [rows, hidden], may be spec.residual.
void moe(ThreadPool& pool, const LinearPath& path, StepArena& arena, const MoeSpec& spec,
         const LinearInput& in, float* y, MoeRouting& routing);

}  // namespace mlxs::cpu
