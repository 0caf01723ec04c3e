// The llama family (llama 2/3.x, mistral, smollm2, yi …; Touvron et al. 2023): pre-norm blocks of
// grouped-query attention with rotary positions and a SiLU-gated feed-forward, RMS norms, no biases, head
// tied to the embedding or not. Mistral's first models also slide a window over the whole depth.
#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {

DecoderSpec llama_spec(const ModelFile& file, const ModelConfig& config) {
  DecoderSpec spec;
  spec.interleaved_rope = true;  // GGUF files keep rotated pairs side by side
  spec.window = window_of(file, config);
  if (file.has(config.architecture + ".attention.sliding_layers"))
    spec.sliding = sliding_layers(file, config, 1);
  // GGUF has no architecture of its own for mixtral.
  if (file.has(config.architecture + ".expert_count") &&
      file.get_int(config.architecture + ".expert_count") > 0) {
    spec.experts = mixtral_experts(file, config);
  }
  return spec;
}

}  // namespace mlxs
