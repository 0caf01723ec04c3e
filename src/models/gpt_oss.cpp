// gpt-oss: a mixture of experts with biases everywhere, a clamped SwiGLU, sinks in the softmax, every other
// layer sliding, YaRN.
#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {

DecoderSpec gpt_oss_spec(const ModelFile& file, const ModelConfig& config) {
  DecoderSpec spec;
  spec.qkv_bias = spec.output_bias = spec.sinks = true;
  spec.ffn_norm = "post_attention_norm";
  spec.activation = Activation::kSwigluClamped;
  spec.window = window_of(file, config);
  spec.sliding = sliding_layers(file, config, 2);
  ExpertsSpec experts = read_experts(file, config);
  experts.gate = MoeSpec::Gate::kSoftmaxOfChosen;
  experts.router_bias = experts.biases = true;
  spec.experts = experts;
  const std::string limit = config.architecture + ".swiglu_limit";
  require(file, !file.has(limit) || file.get_float(limit) == 7.0,
          limit + " is not 7, the only one supported");
  return spec;
}

}  // namespace mlxs
