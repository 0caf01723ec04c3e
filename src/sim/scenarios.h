// Named mixes of traffic, so that a simulation needs one word. Values; pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sim/generated_traffic.h"

namespace mlxs {

struct ScenarioSize {
  double requests_per_s = 10;  // of all tenants but a flood
  double seconds = 600;
  std::int32_t max_context = 36864;
};

struct ScenarioName {
  std::string name, what;
};
std::vector<ScenarioName> scenario_names();
// Throws kInvalidArgument, naming the known ones.
std::vector<TrafficStream> scenario(std::string_view name, const ScenarioSize& size);

}  // namespace mlxs
