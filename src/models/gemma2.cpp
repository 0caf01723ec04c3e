// Gemma 2: norms around each half of a block, scores and logits soft-capped, every other layer sliding, GELU,
// the embedding scaled by √hidden.
#include <cmath>

#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {

DecoderSpec gemma_spec(const ModelFile& file, const ModelConfig& config, std::int32_t pattern,
                       std::int32_t layers_of_27b) {
  const std::string prefix = config.architecture + ".";
  DecoderSpec spec;
  spec.post_norms = true;
  spec.unit_offset = file.get_bool(prefix + "norm_unit_offset", false);  // GGUF has it added
  spec.activation = Activation::kGeluTanh;
  spec.embedding_scale = std::sqrt(static_cast<float>(config.hidden));
  // GGUF does not keep query_pre_attn_scalar: only the 27B models differ from the head's size.
  const int scalar = config.layers == layers_of_27b ? config.hidden / config.heads : config.key_dim;
  spec.attention_scale = positive(file, prefix + "attention.scale", 1.0 / std::sqrt(scalar));
  spec.window = window_of(file, config);
  spec.sliding = sliding_layers(file, config, pattern);
  return spec;
}

DecoderSpec gemma2_spec(const ModelFile& file, const ModelConfig& config) {
  DecoderSpec spec = gemma_spec(file, config, 2, 46);
  spec.attention_cap = positive(file, config.architecture + ".attn_logit_softcapping", 50.0);
  spec.logit_cap = positive(file, config.architecture + ".final_logit_softcapping", 30.0);
  return spec;
}

}  // namespace mlxs
