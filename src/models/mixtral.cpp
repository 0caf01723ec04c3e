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

std::unique_ptr<Model> load_mixtral(const ModelFile& file, Backend& backend, WeightCache* cache) {
  const ModelConfig config = read_config(file);
  DecoderSpec spec;
  spec.window = window_of(file, config);
  spec.experts = mixtral_experts(file, config);
  return make_decoder(file, backend, cache, config, spec);
}

}  // namespace mlxs
