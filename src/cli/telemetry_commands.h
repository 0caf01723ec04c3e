// The commands about what servers tell of themselves; see commands.h.
#pragma once

#include "cli/commands.h"

namespace mlxs::cli {

void add_trace(CLI::App& app, Action& action);
void add_metrics(CLI::App& app, Action& action);

}  // namespace mlxs::cli
