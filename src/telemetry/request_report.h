// A request's record as its readers want it: JSON for GET /v1/requests, and a header. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>

#include "telemetry/request_log.h"

namespace mlxs {

// reader: whose other requests may be named; nullptr: anybody's.
nlohmann::ordered_json report_json(const RequestReport& report, const std::string* reader);
// One line of a list of requests.
nlohmann::ordered_json report_summary_json(const RequestReport& report);

// The value of x-mlxs-timing at this moment, in the syntax of Server-Timing: "total;dur=12.3, queue;dur=0.4".
std::string timing_header(const RequestReport& report, TimePoint now);

}  // namespace mlxs
