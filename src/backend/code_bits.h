// The width of MLX's codes, for whoever packs them. Pure.
#pragma once

#include "base/dtype.h"

namespace mlxs {

// Bits of a code of the MLX types, MXFP4's among them; 0: another type.
int mlx_code_bits(DType type);

}  // namespace mlxs
