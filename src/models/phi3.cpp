// Phi 3 and 3.5, and Phi 4 (mini): llama with q, k, v in one matrix and gate and up in another, LongRoPE, and
// in the short-context models a sliding window.
#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {

std::unique_ptr<Model> load_phi3(const ModelFile& file, Backend& backend, WeightCache* cache) {
  const ModelConfig config = read_config(file);
  DecoderSpec spec;
  spec.fused = true;
  spec.window = window_of(file, config);
  return make_decoder(file, backend, cache, config, spec);
}

}  // namespace mlxs
