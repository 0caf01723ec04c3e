// Flags that switch parts of metal_optimizations on with their default sizes; all their keys are in the
// configuration tree.
#pragma once

#include <CLI/CLI.hpp>

#include "mlxs/metal_optimizations.h"

namespace mlxs::cli {

void add_metal_flags(CLI::App& command, MetalOptimizations& options);

}  // namespace mlxs::cli
