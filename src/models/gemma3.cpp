// Gemma 3 (text): Gemma 2 without caps, with head norms; five sliding layers to one global, each kind with a
// rope of its own.
#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {

DecoderSpec gemma3_spec(const ModelFile& file, const ModelConfig& config) {
  DecoderSpec spec = gemma_spec(file, config, 6, 62);
  spec.head_norms = true;
  spec.local_rope_base = positive(file, config.architecture + ".rope.freq_base_swa", 10000.0);
  return spec;
}

}  // namespace mlxs
