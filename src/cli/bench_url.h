// The benchmarks of running servers as subcommands of `bench`.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <string>

#include "cli/commands.h"

namespace mlxs::cli {

// quick, compare, ttft, all and report.
void add_url_benches(CLI::App& bench, Action& action);

// `--url` and what goes with it on `throughput`, which measures the engine itself without. model and json are
// the command's own and outlive the parsing. What it returns sets the action and says true if --url was
// given.
std::function<bool(Action&)> add_url_throughput(CLI::App& command, const std::string& model,
                                                const bool& json);

}  // namespace mlxs::cli
