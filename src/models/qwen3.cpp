// Qwen3, dense and mixture of experts: llama with an RMS norm of each head's q and k.
#include <algorithm>

#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {

DecoderSpec qwen3_spec(const ModelFile& file, const ModelConfig& config) {
  DecoderSpec spec;
  spec.head_norms = true;
  spec.window = window_of(file, config);
  spec.sliding = layers_from(file, config, "attention.max_window_layers");
  return spec;
}

DecoderSpec qwen3_moe_spec(const ModelFile& file, const ModelConfig& config) {
  DecoderSpec spec = qwen3_spec(file, config);
  ExpertsSpec experts = read_experts(file, config);
  experts.normalize = file.get_bool(config.architecture + ".expert_weights_norm", true);
  const int step = small_int(file, config.architecture + ".expert_layer_step", config.layers, 1);
  experts.dense.resize(static_cast<std::size_t>(config.layers));
  const auto* dense = file.find_ints(config.architecture + ".dense_layers");
  for (int i = 0; i < config.layers; ++i) {
    const bool named = dense != nullptr && std::ranges::find(*dense, i) != dense->end();
    experts.dense[static_cast<std::size_t>(i)] = named || (i + 1) % step != 0;
  }
  spec.experts = experts;
  return spec;
}

}  // namespace mlxs
