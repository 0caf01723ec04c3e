// Reads the hyperparameters that every family shares out of a model file, checked. A family reads its own
// through the same functions. Throws kModelLoad naming the key, its value and the range.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "formats/model_file.h"
#include "models/model.h"

namespace mlxs {

ModelConfig read_config(const ModelFile& file);

// file.get_int within 1 … maximum.
std::int32_t small_int(const ModelFile& file, std::string_view key, std::int64_t maximum,
                       std::optional<std::int64_t> fallback = {});
// file.get_float, finite and > 0.
float positive(const ModelFile& file, std::string_view key, std::optional<double> fallback = {});
void require(const ModelFile& file, bool holds, std::string_view what);

// Which layers see a window only: the file's own list (sliding_layers), else all but every `pattern`-th
// (the file's sliding_window_pattern before ours). Empty if the file names no window.
std::vector<bool> sliding_layers(const ModelFile& file, const ModelConfig& config, std::int32_t pattern);
// True from the layer on that `key` names (Qwen's max_window_layers); empty if the file has no such key.
std::vector<bool> layers_from(const ModelFile& file, const ModelConfig& config, std::string_view key);
// "<architecture>.attention.sliding_window", 0: none.
std::int32_t window_of(const ModelFile& file, const ModelConfig& config);

}  // namespace mlxs
