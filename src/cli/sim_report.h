// The simulator's results as text and JSON. Pure functions.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sim/policies.h"

namespace mlxs::cli {

struct SimColumn {
  SimPolicy policy;
  SimReport report;
};

std::string sim_table(const std::vector<SimColumn>& columns);  // one column a policy
nlohmann::json sim_json(const SimColumn& column);

}  // namespace mlxs::cli
