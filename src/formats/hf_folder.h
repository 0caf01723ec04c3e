// A Hugging Face or MLX folder as a model: config.json, safetensors (one file, shards with an index, or
// shards alone), tokenizer files. Everything is checked before anything is returned; throws kModelLoad.
#pragma once

#include <filesystem>
#include <vector>

#include "formats/model_content.h"

namespace mlxs {

bool is_hf_folder(const std::filesystem::path& folder);  // holds config.json or safetensors
std::vector<std::filesystem::path> safetensors_in(const std::filesystem::path& folder);  // by name
ModelContent open_hf_folder(const std::filesystem::path& folder);

}  // namespace mlxs
