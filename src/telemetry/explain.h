// What took a request's time: its parts, and one sentence about the longest. Pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "telemetry/request_log.h"

namespace mlxs {

// The parts of the whole request in their order, those of the choice that ended last, then "deliver": their
// sum is its e2e time. Parts that took no time are left out.
std::vector<std::pair<std::string_view, double>> request_parts(const RequestReport& report);

// "prefill took 71 % of 1.93 s: …". Empty while the request runs.
std::string explain(const RequestReport& report);

}  // namespace mlxs
