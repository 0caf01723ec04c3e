// The access log: one line a request, with the ids that lead to its trace and its record. Pure, but for
// write_access_line().
#pragma once

#include <string>

#include "telemetry/request_log.h"

namespace mlxs {

// "POST /v1/chat/completions 200 smollm2 …", for a person.
std::string access_text(const RequestReport& report);
// A JSON object's members, without its braces: "\"request_id\":\"…\",…".
std::string access_fields(const RequestReport& report);
// To the log, in its format; probes and scrapes only at level debug.
void write_access_line(const RequestReport& report);

}  // namespace mlxs
