// Traffic from a recorded trace: one JSON object a line, as Mooncake's public traces have them (Qin et al.
// 2025):
//   {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}
// timestamp and cancel_after_ms are milliseconds; equal hash_ids are equal blocks of 512 prompt tokens, and
// what no id covers is nobody else's. Optional: "tenant", "priority" (critical, high, normal, low),
// "cancel_after_ms". Throws kInvalidArgument with the line of what is missing, unknown or out of range; kIo
// if there is no file.
#pragma once

#include <istream>
#include <memory>
#include <string>

#include "sim/traffic.h"

namespace mlxs {

inline constexpr std::int32_t kTraceBlockTokens = 512;

// speed: 2 plays the trace in half the time. Lines need not be in order. `name` is for errors.
std::unique_ptr<Traffic> trace_traffic(std::istream& lines, const std::string& name, double speed = 1);
std::unique_ptr<Traffic> trace_file_traffic(const std::string& path, double speed = 1);

}  // namespace mlxs
