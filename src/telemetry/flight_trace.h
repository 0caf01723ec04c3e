// A dump of the flight recorder as a trace for Perfetto or chrome://tracing: a lane with the engine's steps
// and their parts, counters, and a lane for each request. Pure; dumps are untrusted bytes: throws
// kInvalidArgument.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "telemetry/flight_format.h"

namespace mlxs {

// Whole entries only, oldest first.
struct FlightDump {
  FlightHeader header;
  std::vector<FlightStep> steps;
  std::vector<std::vector<FlightSpan>> spans;  // of each step; empty: overwritten since
  std::vector<FlightEvent> events;
};

FlightDump read_flight(std::string_view bytes);
// Chrome's trace event format, one JSON object.
std::string chrome_trace(const FlightDump& dump);

}  // namespace mlxs
