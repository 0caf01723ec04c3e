#include "sim/cost_model.h"

#include <algorithm>

namespace mlxs {

StepShape shape_of(const StepPlan& plan) {
  StepShape shape;
  shape.tokens = plan.total_tokens;
  const auto decodes = static_cast<std::size_t>(plan.decode_rows);
  for (std::size_t i = 0; i < plan.spans.size(); ++i) {
    const PlannedSpan& span = plan.spans[i];
    if (i < decodes) {
      shape.decode_context += span.start + 1;
    } else {
      const double count = span.count;
      shape.prefill_pairs += count * span.start + count * (count + 1) / 2;
    }
  }
  return shape;
}

double CostModel::seconds(const StepShape& shape) const {
  return fixed_s + std::max(weights_s, shape.tokens * token_s) + shape.prefill_pairs * pair_s +
         shape.decode_context * context_s;
}

CostModel h200_cost() {
  // NVIDIA's data sheet of the H200 SXM: 4.8 TB/s, 989 Tflop/s dense bf16. Of these, kernels are granted 80 %
  // and 50 %. Llama 3.1 8B (its config.json): 8.03e9 parameters, 32 layers, 32 query and 8 KV heads of 128.
  constexpr double kBytesPerS = 0.8 * 4.8e12, kFlops = 0.5 * 989e12;
  constexpr double kParameters = 8.03e9, kLayers = 32, kQueryWidth = 32 * 128, kKvWidth = 8 * 128;
  CostModel cost;
  cost.fixed_s = 0.5e-3;  // launches, sampling, the scheduler: an assumption
  cost.weights_s = 2 * kParameters / kBytesPerS;
  cost.token_s = 2 * kParameters / kFlops;
  cost.pair_s = 4 * kLayers * kQueryWidth / kFlops;          // q·k and p·v, a multiply and an add each
  cost.context_s = 2 * 2 * kLayers * kKvWidth / kBytesPerS;  // K and V of 2 bytes
  cost.page_copy_s = kPageTokens * 2 * 2 * kLayers * kKvWidth / 50e9;  // PCIe 5.0 x16: 64 GB/s by its name
  cost.source = "Llama 3.1 8B in bf16 on an NVIDIA H200: data sheet, 80 % of bandwidth, 50 % of arithmetic";
  return cost;
}

}  // namespace mlxs
