// Routing of a mixture of experts as part of the step's graph: nothing is read back, so a step with mixtures
// is still evaluated once. As moe_routing.h chooses on the host. Engine thread only.
#pragma once

#include <mlx/mlx.h>

#include <optional>

#include "backend/ops.h"

namespace mlxs::mlx_backend {

namespace mx = mlx::core;

struct ChosenExperts {
  mx::array experts;  // u32 [rows, used]
  mx::array weights;  // f32 [rows, used]
};

// logits: f32 [rows, experts], without biases. router_bias, selection_bias: f32 [experts].
ChosenExperts choose_experts(const mx::array& logits, const std::optional<mx::array>& router_bias,
                             const std::optional<mx::array>& selection_bias, const MoeSpec& spec);

// A row for each choice, n = rows · used of them; where there are many, those of one expert side by side.
struct ExpertRows {
  explicit ExpertRows(const mx::array& chosen);  // u32 [rows, used]

  mx::array spread(const mx::array& x) const;  // [rows, columns] → [n, columns]
  // [n, columns] → [rows, columns], weighted by [rows, used].
  mx::array mix(const mx::array& y, const mx::array& weights) const;

  int rows, used;
  bool sorted;
  mx::array order, experts;  // u32 [n]: which choice stands there (choice / used is its row), of which expert
};

}  // namespace mlxs::mlx_backend
