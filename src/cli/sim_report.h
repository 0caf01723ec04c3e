// The simulator's results as text, JSON and a figure. Pure functions.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "sim/compare.h"

namespace mlxs::cli {

std::string sim_table(std::span<const SimRun> runs);  // one column a run
// Goodput, one row a rate and one column a policy. runs: policies of the first rate, of the second, …
std::string sim_rate_table(std::span<const SimRun> runs, std::size_t policies);
nlohmann::json sim_json(const SimRun& run);

// How long first tokens took (by tenant if there are several) and gaps between tokens; or, for several rates,
// goodput by rate.
std::string sim_figure(const std::string& title, std::span<const SimRun> runs, std::size_t policies,
                       const SloTargets& slo);

}  // namespace mlxs::cli
