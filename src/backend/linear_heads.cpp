// Heads with weights of their own, for backends without a better way: one after the other.
#include <vector>

#include "backend/ops.h"

namespace mlxs {

Tensor Backend::linear_heads(Tensor x, std::int32_t first, std::int32_t step,
                             std::span<const WeightPtr> weights) {
  const auto columns = static_cast<std::int32_t>(weights.front()->columns()),
             out = static_cast<std::int32_t>(weights.front()->rows());
  std::vector<ColumnRuns> parts;
  for (const WeightPtr& weight : weights) {
    const auto head = static_cast<std::int32_t>(parts.size());
    const ColumnRuns own{.from = x, .first = first + head * step, .columns = columns};
    const Tensor input = assemble({&own, 1}, columns);
    parts.push_back({.from = linear(input, *weight), .columns = out, .to = head * out});
    release(input);
  }
  const Tensor y = assemble(parts, static_cast<std::int32_t>(parts.size()) * out);
  for (const ColumnRuns& part : parts) release(part.from);
  return y;
}

}  // namespace mlxs
