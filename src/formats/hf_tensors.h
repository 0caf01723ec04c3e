// Stored tensors of a Hugging Face or MLX folder → the model's tensors under canonical names, each with its
// scales: "X.weight" (U32 codes), "X.scales", "X.biases" of MLX; "X.weight", "X.weight_scale_inv" of FP8.
// Throws kModelLoad where codes, scales and config.json contradict each other.
#pragma once

#include <string_view>
#include <vector>

#include "formats/hf_config.h"
#include "formats/safetensors.h"

namespace mlxs {

// Adds to content.tensors and tensor_index. name: for messages.
void add_hf_tensors(const std::vector<StoredTensor>& stored, const HfConfig& config, std::string_view name,
                    ModelContent& content);

}  // namespace mlxs
