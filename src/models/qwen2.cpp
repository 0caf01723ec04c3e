// Qwen2 and Qwen2.5: llama with biases on q, k and v; from max_window_layers on a sliding window, if the file
// uses one.
#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {

DecoderSpec qwen2_spec(const ModelFile& file, const ModelConfig& config) {
  DecoderSpec spec;
  spec.qkv_bias = true;
  spec.window = window_of(file, config);
  spec.sliding = layers_from(file, config, "attention.max_window_layers");
  return spec;
}

}  // namespace mlxs
