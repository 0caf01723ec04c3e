// Where the time of recent requests went: GET /v1/requests/{id}, and GET /v1/requests?limit=N, the newest
// first. Where keys are asked for, a user sees its own requests only, and of others neither id nor name.
// The log outlives the router.
#pragma once

#include "serve/fields.h"
#include "serve/router.h"
#include "telemetry/request_log.h"

namespace mlxs {

inline constexpr int kMostListedRequests = 1000;
inline constexpr FieldRule kRequestsQuery[] = {
    field::integer("limit", 1, kMostListedRequests, "So many at most; 20 unless given")};

void add_request_routes(Router& router, const RequestLog& log);

}  // namespace mlxs
