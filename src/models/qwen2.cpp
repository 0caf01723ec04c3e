// Qwen2 and Qwen2.5: llama with biases on q, k and v; from max_window_layers on a sliding window, if the file
// uses one.
#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {

std::unique_ptr<Model> load_qwen2(const ModelFile& file, Backend& backend, WeightCache* cache) {
  const ModelConfig config = read_config(file);
  DecoderSpec spec;
  spec.qkv_bias = true;
  spec.window = window_of(file, config);
  spec.sliding = layers_from(file, config, "attention.max_window_layers");
  return make_decoder(file, backend, cache, config, spec);
}

}  // namespace mlxs
