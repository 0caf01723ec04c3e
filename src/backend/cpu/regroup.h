// Weights whose scales lie beside the codes (MLX, FP8), rewritten row by row into the block types that pack.h
// takes. Exact but for scales that f16 cannot hold and, where no block type has the code's width (FP8), for
// the rounding of the value to 16 bits. Load time only; pure functions, any thread.
#pragma once

#include <cstddef>
#include <optional>

#include "backend/ops.h"

namespace mlxs::cpu {

// What rows of a type become: itself, if it carries its own scales; nothing, if it is no type of weights.
std::optional<DType> regrouped_type(DType type);

// Throws kModelLoad unless the type, the group and the sizes of the scales fit each other and the tensor.
void check_scales(const RawWeight& weight);

// out: row_bytes(*regrouped_type(weight.type), weight.columns) bytes. The weight passed check_scales().
void regroup_row(const RawWeight& weight, std::int64_t row, std::byte* out);

}  // namespace mlxs::cpu
