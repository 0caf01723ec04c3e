// Which file of a folder is the model. Throws kModelLoad when none or more than one could be meant.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

namespace mlxs {

// The .gguf files directly in the folder, sorted by name.
std::vector<std::filesystem::path> gguf_files_in(const std::filesystem::path& folder);
// The only .gguf file of the folder; the folder itself, if it holds safetensors; or an error that says what
// lies there instead.
std::filesystem::path single_model_in(const std::filesystem::path& folder);
// Throws for one part of a split model ("…-00001-of-00003.gguf"), naming what would join it.
void refuse_split_name(const std::filesystem::path& file);

}  // namespace mlxs
