// One throughput case on the engine, in process: what `mlx-serving bench throughput` runs and prints.
// Uses the public API only, so that the figures are what a library user gets.
#pragma once

#include <string>
#include <vector>

#include "mlxs/engine.h"

namespace mlxs::cli {

struct ThroughputCase {
  std::string kind =
      "decode";  // "prefill": prompt tokens a second; "decode": generated tokens a second, all streams
  int streams = 1;
  int context = 16;         // prompt tokens of each stream
  int tokens = 128;         // generated tokens of each stream (decode)
  bool structured = false;  // every stream obeys a JSON schema
  int pairs = 0;            // rounds of run_structured_pairs
};

struct ThroughputResult {
  double tokens_per_second = 0;
  double seconds = 0;
  double step_ms = 0;  // median step of the measured part
  double overhead_share =
      0;  // of the measured wall time, what was spent outside the backend (plan, commit, waiting)
  std::uint64_t weight_bytes = 0;
  std::uint64_t kv_bytes = 0;        // of the KV pages that the case wrote
  std::uint64_t resident_bytes = 0;  // the process's largest, weights and those pages included
};

// Ordinary tokens, different for each stream, so that no prefix is shared.
std::vector<std::int32_t> bench_prompt(int length, int stream, int vocabulary);

// Loads the model, runs the case once warm. Throws Error.
ThroughputResult run_throughput(EngineOptions options, const std::string& model, const ThroughputCase& what);

// What obeying a schema costs: decoding with it and without, in turns on one engine, so that what else the
// machine does hits both. Rates are tokens a second, processor times microseconds a token of all threads.
struct StructuredPair {
  double free_rate = 0, bound_rate = 0;
  double free_processor_us = 0, bound_processor_us = 0;
};
std::vector<StructuredPair> run_structured_pairs(EngineOptions options, const std::string& model,
                                                 const ThroughputCase& what);

}  // namespace mlxs::cli
