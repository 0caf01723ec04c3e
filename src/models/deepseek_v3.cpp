// DeepSeek V3 and R1 (DeepSeek-AI 2024), and GGUF files of V2: latent attention, then a feed-forward or,
// behind the first layers, a mixture of many small experts and a shared one, chosen by groups with a bias.
#include <cmath>

#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {
namespace {

LatentSpec read_latent(const ModelFile& file, const ModelConfig& config) {
  const std::string prefix = config.architecture + ".attention.";
  LatentSpec latent;
  latent.rank = small_int(file, prefix + "kv_lora_rank", 1 << 12);
  if (file.has(prefix + "q_lora_rank")) latent.query_rank = small_int(file, prefix + "q_lora_rank", 1 << 16);
  latent.rotated_dim = config.rope_dims;
  // Where a GGUF file counts latents as one head's keys and values, the real sizes have keys of their own.
  const std::int32_t key = small_int(file, prefix + "key_length_mla", 1 << 12, config.key_dim);
  latent.value_dim = small_int(file, prefix + "value_length_mla", 1 << 12, config.value_dim);
  require(file, key > latent.rotated_dim, prefix + "key_length has no part that is not rotated");
  latent.plain_dim = key - latent.rotated_dim;
  return latent;
}

// 1/√d, times the square of what YaRN adds to the magnitude of the scores.
float attention_scale(const ModelFile& file, const ModelConfig& config, const LatentSpec& latent) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(latent.plain_dim + latent.rotated_dim));
  const std::string prefix = config.architecture + ".rope.scaling.";
  if (file.get_string(prefix + "type", "none") != "yarn") return scale;
  const float factor = positive(file, prefix + "factor");
  if (factor <= 1.0f) return scale;
  const auto magnitude = static_cast<float>(1.0 + 0.1 * yarn_magnitudes(file, config).all *
                                                      std::log(static_cast<double>(factor)));
  return scale * magnitude * magnitude;
}

ExpertsSpec read_mixture(const ModelFile& file, const ModelConfig& config) {
  const std::string prefix = config.architecture + ".";
  ExpertsSpec e = read_experts(file, config);
  const std::int64_t gate = file.get_int(prefix + "expert_gating_func", 1);
  require(file, gate == 1 || gate == 2, prefix + "expert_gating_func is neither 1 (softmax) nor 2 (sigmoid)");
  e.gate = gate == 2 ? MoeSpec::Gate::kSigmoid : MoeSpec::Gate::kSoftmax;
  e.normalize = file.get_bool(prefix + "expert_weights_norm", false);
  e.scale = positive(file, prefix + "expert_weights_scale", 1.0);
  e.groups = small_int(file, prefix + "expert_group_count", e.count, 1);
  e.groups_used = small_int(file, prefix + "expert_group_used_count", e.groups, e.groups);
  require(file, e.count % e.groups == 0 && e.used <= e.count / e.groups * e.groups_used,
          prefix + "expert_group_count does not fit the experts");
  const std::int64_t shared = file.get_int(prefix + "expert_shared_count", 0);
  require(file, shared >= 0 && shared <= 64, prefix + "expert_shared_count is outside 0 … 64");
  e.shared = e.feed_forward * static_cast<std::int32_t>(shared);
  e.selection_bias = gate == 2;
  const std::int64_t first = file.get_int(prefix + "leading_dense_block_count", 0);
  const std::int64_t step = small_int(file, prefix + "expert_layer_step", config.layers, 1);
  for (std::int64_t i = 0; i < config.layers; ++i) e.dense.push_back(i < first || i % step != 0);
  return e;
}

}  // namespace

DecoderSpec deepseek_v3_spec(const ModelFile& file, const ModelConfig& config) {
  DecoderSpec spec;
  spec.interleaved_rope = true;
  spec.latent = read_latent(file, config);
  spec.attention_scale = attention_scale(file, config, *spec.latent);
  if (file.has(config.architecture + ".expert_count")) spec.experts = read_mixture(file, config);
  return spec;
}

}  // namespace mlxs
