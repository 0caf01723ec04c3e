// What a client may ask of the scheduler in headers, in every dialect: x-priority, x-slo-ttft-ms,
// x-slo-tpot-ms. A gateway sets them, so they win over the body's fields. Pure.
#pragma once

#include "serve/http.h"

namespace mlxs {

// Throw kInvalidArgument that names the header.
void check_qos_headers(const HttpRequest& request);
void apply_qos_headers(const HttpRequest& request, Generation& generation);

// "critical", "high", "normal", "low"; kInvalidArgument naming `field` otherwise.
RequestPriority parse_priority(std::string_view field, std::string_view name);

inline constexpr double kLongestSloMs = 3600e3;

}  // namespace mlxs
