// Which experts each row of a step goes to, from the router's logits, and the rows of every expert side by
// side. Shared by backends that route on the host. Plain data; the caller keeps it to reuse its memory.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/ops.h"

namespace mlxs {

struct MoeRouting {
  std::int32_t used = 0;                // experts a row
  std::vector<float> weights;           // [rows][used]
  std::vector<std::int32_t> places;     // [rows][used]: where the row stands in expert order
  std::vector<std::int32_t> rows;       // in expert order: which row stands there, [rows · used]
  std::vector<std::int32_t> first_row;  // [experts + 1]: an expert's places
};

// logits: [rows][experts], without biases. selection_bias, router_bias: [experts] or empty. NaN logits choose
// the lowest experts and give NaN weights, so a damaged row stays damaged and harms no other.
void route(std::span<const float> logits, std::span<const float> router_bias,
           std::span<const float> selection_bias, const MoeSpec& spec, MoeRouting& out);

}  // namespace mlxs
