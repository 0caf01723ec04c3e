// Phi 3 and 3.5, and Phi 4 (mini): llama with q, k, v in one matrix and gate and up in another, LongRoPE, and
// in the short-context models a sliding window.
#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {

DecoderSpec phi3_spec(const ModelFile& file, const ModelConfig& config) {
  DecoderSpec spec;
  spec.fused = true;
  spec.window = window_of(file, config);
  return spec;
}

}  // namespace mlxs
