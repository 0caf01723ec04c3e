// `mlx-serving bench serve`: one load on a running server that speaks the OpenAI API, ours or a peer's, and
// its percentiles, printed as a table or as one JSON object. The load itself is cli/load_client's.
#pragma once

#include "cli/commands.h"

namespace mlxs::cli {

void add_serve_bench(CLI::App& bench, Action& action);  // the subcommand; exit 1 if a request failed

}  // namespace mlxs::cli
