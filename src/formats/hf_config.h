// config.json of a Hugging Face or MLX folder → canonical metadata, the keys that GGUF files have
// ("llama.block_count"), and how its weights are quantized. Pure; throws kModelLoad: an unknown model_type
// (lists the supported), a value of the wrong kind, a setting that would change the answers if it were
// ignored.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "formats/hf_families.h"
#include "formats/model_content.h"

namespace mlxs {

enum class QuantMode { kAffine, kMxfp4 };

struct MlxQuantization {
  int bits = 0;
  int group = 0;
  QuantMode mode = QuantMode::kAffine;
};

struct HfConfig {
  const HfFamily* family = nullptr;
  bool tied_head = false;                       // the file's own head, if any, is to be left out
  std::optional<MlxQuantization> quantization;  // of layers that have scales
  std::map<std::string, std::optional<MlxQuantization>, std::less<>> overrides;  // by module; nullopt: none
  // Blocks [layers, layers + draft_layers) guess further tokens; they are left out.
  std::int64_t layers = 0, draft_layers = 0;
  bool fp8 = false;                                // weight_scale_inv beside F8_E4M3 weights
  std::int64_t fp8_rows = 128, fp8_columns = 128;  // of a block
};

// Adds to content.metadata. name: for messages.
HfConfig read_hf_config(const nlohmann::json& config, std::string_view name, ModelContent& content);

}  // namespace mlxs
