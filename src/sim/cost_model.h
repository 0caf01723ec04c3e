// What a step costs on some machine: a roofline of the weights (read once a step) and the arithmetic (of
// every token), plus what the step's context costs, plus a constant. Values; pure.
#pragma once

#include <string>

#include "sched/step_plan.h"

namespace mlxs {

// A step in numbers that its duration depends on.
struct StepShape {
  double tokens = 0;          // rows of the batch
  double prefill_pairs = 0;   // (query, key) pairs of prompt chunks
  double decode_context = 0;  // keys that the decode rows read
};
StepShape shape_of(const StepPlan& plan);

// seconds = fixed_s + max(weights_s, tokens · token_s) + prefill_pairs · pair_s + decode_context · context_s
struct CostModel {
  double fixed_s = 0;
  double weights_s = 4e-3;
  double token_s = 1e-4;
  double pair_s = 0;
  double context_s = 0;
  double page_copy_s = 0;          // beside that: a KV page to the host or back
  std::string source = "made up";  // where the numbers come from

  double seconds(const StepShape& shape) const;
};

// An 8-billion-parameter Llama in bf16 on one NVIDIA H200, from the data sheets: see cost_model.cpp.
CostModel h200_cost();

}  // namespace mlxs
