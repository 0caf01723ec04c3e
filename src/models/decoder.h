// The pre-norm decoder that all families are variants of: attention, then a feed-forward or a mixture of
// experts, each added to the stream. A family's file reads its configuration into a DecoderSpec; what the
// spec leaves at its default is llama. Weights and forward pass are here, once.
#pragma once

#include <optional>
#include <vector>

#include "models/config_reader.h"
#include "models/latent_attention.h"
#include "models/model.h"
#include "models/rope.h"
#include "models/weight_loader.h"

namespace mlxs {

struct ExpertsSpec {
  std::int32_t count = 0;
  std::int32_t used = 0;
  std::int32_t feed_forward = 0;  // of one expert
  MoeSpec::Gate gate = MoeSpec::Gate::kSoftmax;
  bool normalize = false;
  float scale = 1.0f;  // of the mixture
  std::int32_t groups = 1, groups_used = 1;
  std::int32_t shared = 0;  // feed_forward of the part that every token passes; 0: none
  bool selection_bias = false;
  bool router_bias = false;
  bool biases = false;      // on every expert's projections
  std::vector<bool> dense;  // layers with an ordinary feed-forward; empty: none
};

struct DecoderSpec {
  bool interleaved_rope = false;  // what GGUF files of the family mean
  bool fused = false;             // files hold attn_qkv, and gate and up as ffn_up
  bool qkv_bias = false;
  bool output_bias = false;  // of the attention's output
  bool head_norms = false;   // RMS norm of each head's q and k
  bool post_norms = false;   // a norm behind each half of a block, before it is added
  bool sinks = false;
  std::string_view ffn_norm = "ffn_norm";
  bool unit_offset = false;  // gains are stored as (gain - 1)
  Activation activation = Activation::kSilu;
  float embedding_scale = 1.0f;
  float attention_scale = 0.0f;  // 0: 1/√key_dim
  float attention_cap = 0.0f;
  float logit_cap = 0.0f;
  std::int32_t window = 0;
  std::vector<bool> sliding;             // layers that see the window only; empty: all, if there is one
  std::vector<bool> rotated;             // layers with rope; empty: all
  std::optional<float> local_rope_base;  // of the sliding layers
  std::optional<LatentSpec> latent;      // instead of attn_q, attn_k and attn_v
  std::optional<ExpertsSpec> experts;
};

// count, used and feed_forward, checked; the rest as by default.
ExpertsSpec read_experts(const ModelFile& file, const ModelConfig& config);

// The configuration with what follows from the spec: what the KV cache holds, and which layers see how much.
ModelConfig with_spec(ModelConfig config, const DecoderSpec& spec);

// config: with_spec().
std::unique_ptr<Model> make_decoder(const ModelFile& file, Backend& backend, WeightCache* cache,
                                    const ModelConfig& config, const DecoderSpec& spec);

}  // namespace mlxs
