// Tensor names of Hugging Face and MLX files → canonical (GGUF) names. Pure.
#pragma once

#include <string>
#include <string_view>

#include "formats/hf_families.h"

namespace mlxs {

// "model.layers.3.self_attn.q_proj.weight" → "blk.3.attn_q.weight". A name that no table has stays as it is,
// so that an error can name it; a computed buffer that is no weight becomes "".
std::string canonical_tensor_name(const HfFamily& family, std::string_view name);

}  // namespace mlxs
