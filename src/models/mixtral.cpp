// Mixtral (Jiang et al. 2024): llama with a mixture of experts in every block, weighted by a softmax over the
// chosen experts' logits.
#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {

ExpertsSpec mixtral_experts(const ModelFile& file, const ModelConfig& config) {
  ExpertsSpec experts = read_experts(file, config);
  experts.feed_forward = config.feed_forward;
  experts.gate = MoeSpec::Gate::kSoftmaxOfChosen;
  return experts;
}

DecoderSpec mixtral_spec(const ModelFile& file, const ModelConfig& config) {
  DecoderSpec spec;
  spec.window = window_of(file, config);
  spec.experts = mixtral_experts(file, config);
  return spec;
}

}  // namespace mlxs
