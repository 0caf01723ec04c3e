// Which file of a folder is the model. Throws kModelLoad when none or more than one could be meant.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

namespace mlxs {

// The .gguf files directly in the folder, sorted by name.
std::vector<std::filesystem::path> gguf_files_in(const std::filesystem::path& folder);
// The only model's .gguf file (the first part, if split); the folder itself, if it holds safetensors; or an
// error that says what lies there instead.
std::filesystem::path single_model_in(const std::filesystem::path& folder);
// "x-00002-of-00003.gguf" → all three, which must exist; any other file → itself.
std::vector<std::filesystem::path> gguf_parts(const std::filesystem::path& file);
// The files whose bytes ModelFile::fingerprint() counts, for a .gguf file or a folder.
std::vector<std::filesystem::path> weight_files_of(const std::filesystem::path& model);

}  // namespace mlxs
