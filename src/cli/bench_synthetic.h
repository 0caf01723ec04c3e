// A published model that is not here, with random weights made from its config.json: prefill and decode steps
// through the op set, without tokenizer, scheduler or server. Tokens are random at every step, so that
// experts are chosen at random. What `mlx-serving bench synthetic` runs and prints. Throws Error.
#pragma once

#include <string>
#include <vector>

#include "backend/ops.h"

namespace mlxs::cli {

struct SyntheticBench {
  std::string config;  // path of a config.json
  std::vector<int> streams = {1, 8, 32, 64};
  int context = 512;  // tokens of each prompt
  int steps = 64;     // measured decode steps
  int rows = 4096;    // of a prefill step, at most
  DType kv_type = DType::kBF16;
};

struct DecodeFigure {
  int streams = 0;
  double tokens_per_second = 0;
  double host_us = 0;                  // of a step, median: until everything was handed to the device
  double step_ms = 0;                  // median
  double idle_share = 0;               // of all steps' time: the device had nothing to do; < 0: not known
  double gigabytes = 0;                // weights and KV that one step must read
  double limit_tokens_per_second = 0;  // if memory were all; 0: its bandwidth is not known
};

struct SyntheticFigures {
  double load_seconds = 0;
  double weight_gigabytes = 0;
  double kv_gigabytes = 0;  // of all streams
  double read_gb_per_second = 0;
  double prefill_tokens_per_second = 0;  // of max(streams) prompts
  std::vector<DecodeFigure> decode;
};

SyntheticFigures run_synthetic(Backend& backend, const SyntheticBench& what);
void print_synthetic(const SyntheticFigures& figures, const std::string& device, bool json);

}  // namespace mlxs::cli
