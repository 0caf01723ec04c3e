#include "models/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace mlxs {
namespace {

struct Layer {
  WeightPtr attention_norm;                     // [hidden]
  WeightPtr qkv, qkv_bias;                      // [(heads + kv_heads)·key_dim + kv_heads·value_dim, hidden]
  WeightPtr query_norm, key_norm;               // [key_dim]
  WeightPtr sinks;                              // [heads]
  std::optional<LatentAttention> latent;        // instead of qkv and what belongs to it
  WeightPtr attention_out, attention_out_bias;  // [hidden, heads·value_dim]
  WeightPtr post_attention_norm;                // [hidden]
  WeightPtr ffn_norm;                           // [hidden]
  WeightPtr gate_up;                            // [2·feed_forward, hidden]; null: experts
  WeightPtr down;                               // [hidden, feed_forward]
  WeightPtr router, router_bias;                // [experts, hidden]
  WeightPtr selection_bias;                     // [experts]
  std::vector<Expert> experts;
  WeightPtr shared_gate_up, shared_down;  // [2·shared, hidden], [hidden, shared]
  WeightPtr post_ffn_norm;                // [hidden]
};

class Decoder final : public Model {
 public:
  Decoder(const ModelFile& file, Backend& backend, WeightCache* cache, const ModelConfig& config,
          const DecoderSpec& spec)
      : spec_(spec) {
    config_ = config;
    const ModelConfig& c = config_;
    // Heads that the backend cannot attend with are refused here, not behind gigabytes of weights.
    static_cast<void>(backend.make_kv({.layers = 1,
                                       .kv_heads = c.kv_heads,
                                       .key_dim = c.key_dim,
                                       .value_dim = c.value_dim,
                                       .num_pages = 1}));
    WeightLoader load(file, backend, cache);
    rope_ = read_rope(file, c, load, spec_.interleaved_rope);
    if (spec_.local_rope_base) local_rope_ = plain_rope(c, *spec_.local_rope_base, rope_.interleaved);
    if (spec_.attention_scale == 0.0f)
      spec_.attention_scale = 1.0f / std::sqrt(static_cast<float>(c.key_dim));
    embedding_ = load.embedding("token_embd.weight", c.vocabulary, c.hidden);
    for (int i = 0; i < c.layers; ++i) layers_.push_back(load_layer(load, i));
    output_norm_ = load.vector("output_norm.weight", c.hidden);
    if (load.has("output.weight")) head_ = load.matrix("output.weight", c.vocabulary, c.hidden);
    load.expect_all_used();
    weight_bytes_ = load.packed_bytes();
  }

  Tensor forward(Backend& backend) override {
    const Weight& head = head_ ? *head_ : *embedding_;
    const NormSpec output_norm = norm(output_norm_);
    Tensor x = backend.embed(*embedding_, spec_.embedding_scale);  // [num_rows, hidden]
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      x = attend(backend, layer, static_cast<int>(i), x);
      // What the next layer does first, or the head.
      const bool last = i + 1 == layers_.size();
      const NormSpec next_norm = last ? output_norm : norm(layers_[i + 1].attention_norm);
      const NextSpec next{.norm = &next_norm, .weight = last ? &head : layers_[i + 1].qkv.get()};
      x = layer.gate_up ? feed_forward(backend, layer, x, next) : mix_experts(backend, layer, x, next);
    }
    return backend.logits(backend.gather_sampled(x), head, &output_norm, spec_.logit_cap);
  }

 private:
  Layer load_layer(WeightLoader& load, int index) const {
    const ModelConfig& c = config_;
    const auto name = [&](std::string_view part) { return fmt::format("blk.{}.{}.weight", index, part); };
    Layer layer;
    layer.attention_norm = load.vector(name("attn_norm"), c.hidden);
    load_attention(load, index, layer);
    if (spec_.post_norms) {
      layer.post_attention_norm = load.vector(name("post_attention_norm"), c.hidden);
      layer.post_ffn_norm = load.vector(name("post_ffw_norm"), c.hidden);
    }
    layer.ffn_norm = load.vector(name(spec_.ffn_norm), c.hidden);
    if (spec_.experts && !(at(spec_.experts->dense, index))) {
      load_experts(load, index, layer);
      return layer;
    }
    layer.gate_up =
        spec_.fused
            ? load.matrix(name("ffn_up"), 2 * c.feed_forward, c.hidden)
            : load.stacked({{name("ffn_gate"), c.feed_forward}, {name("ffn_up"), c.feed_forward}}, c.hidden);
    layer.down = load.matrix(name("ffn_down"), c.hidden, c.feed_forward);
    return layer;
  }

  void load_attention(WeightLoader& load, int index, Layer& layer) const {
    const ModelConfig& c = config_;
    const auto name = [&](std::string_view part) { return fmt::format("blk.{}.{}.weight", index, part); };
    const auto bias = [&](std::string_view part) { return fmt::format("blk.{}.{}.bias", index, part); };
    if (spec_.latent) {
      layer.latent.emplace(load, index, c.heads, c.hidden, *spec_.latent);
      layer.attention_out = load.matrix(name("attn_output"), c.hidden, c.heads * spec_.latent->value_dim);
      return;
    }
    const std::int64_t q = c.heads * c.key_dim, k = c.kv_heads * c.key_dim, v = c.kv_heads * c.value_dim;
    layer.qkv = spec_.fused
                    ? load.matrix(name("attn_qkv"), q + k + v, c.hidden)
                    : load.stacked({{name("attn_q"), q}, {name("attn_k"), k}, {name("attn_v"), v}}, c.hidden);
    if (spec_.qkv_bias)
      layer.qkv_bias = load.stacked_vector({{bias("attn_q"), q}, {bias("attn_k"), k}, {bias("attn_v"), v}});
    if (spec_.head_norms) {
      layer.query_norm = load.vector(name("attn_q_norm"), c.key_dim);
      layer.key_norm = load.vector(name("attn_k_norm"), c.key_dim);
    }
    if (spec_.sinks) layer.sinks = load.vector(name("attn_sinks"), c.heads);
    layer.attention_out = load.matrix(name("attn_output"), c.hidden, c.heads * c.value_dim);
    if (spec_.output_bias) layer.attention_out_bias = load.vector(bias("attn_output"), c.hidden);
  }

  void load_experts(WeightLoader& load, int index, Layer& layer) const {
    const ExpertsSpec& e = *spec_.experts;
    const std::string block = fmt::format("blk.{}.", index);
    layer.router = load.matrix(block + "ffn_gate_inp.weight", e.count, config_.hidden);
    if (e.router_bias) layer.router_bias = load.vector(block + "ffn_gate_inp.bias", e.count);
    if (e.selection_bias) layer.selection_bias = load.vector(block + "exp_probs_b.bias", e.count);
    layer.experts = load.experts(block, e.count, e.feed_forward, config_.hidden, e.biases);
    if (e.shared == 0) return;
    layer.shared_gate_up =
        load.stacked({{block + "ffn_gate_shexp.weight", e.shared}, {block + "ffn_up_shexp.weight", e.shared}},
                     config_.hidden);
    layer.shared_down = load.matrix(block + "ffn_down_shexp.weight", config_.hidden, e.shared);
  }

  Tensor attend(Backend& backend, const Layer& layer, int index, Tensor x) const {
    const ModelConfig& c = config_;
    const bool sliding = spec_.window > 0 && (spec_.sliding.empty() || at(spec_.sliding, index));
    const NormSpec input_norm = norm(layer.attention_norm), query_norm = norm(layer.query_norm),
                   key_norm = norm(layer.key_norm), next_norm = norm(layer.ffn_norm);
    AttentionSpec attention{.layer = index,
                            .heads = c.heads,
                            .kv_heads = c.kv_heads,
                            .key_dim = c.key_dim,
                            .value_dim = c.value_dim};
    attention.scale = spec_.attention_scale;
    attention.soft_cap = spec_.attention_cap;
    if (spec_.rotated.empty() || at(spec_.rotated, index))
      attention.rope = (sliding && local_rope_ ? *local_rope_ : rope_).spec();
    if (layer.query_norm) attention.query_norm = &query_norm;
    if (layer.key_norm) attention.key_norm = &key_norm;
    attention.window = sliding ? spec_.window : 0;
    attention.sinks = layer.sinks.get();

    const Tensor mixed = layer.latent ? layer.latent->mix(backend, x, input_norm, attention)
                                      : mix(backend, layer, x, input_norm, attention);
    const Tensor y =
        project(backend, mixed, *layer.attention_out, layer.attention_out_bias, layer.post_attention_norm, x,
                {.norm = &next_norm, .weight = layer.gate_up ? layer.gate_up.get() : layer.router.get()});
    backend.release(mixed);
    return y;
  }

  static Tensor mix(Backend& backend, const Layer& layer, Tensor x, const NormSpec& input_norm,
                    const AttentionSpec& attention) {
    const Tensor qkv = backend.linear(
        x, *layer.qkv, {.norm = &input_norm, .bias = layer.qkv_bias.get(), .for_attention = true});
    const Tensor mixed = backend.attention(qkv, attention);
    backend.release(qkv);
    return mixed;
  }

  Tensor feed_forward(Backend& backend, const Layer& layer, Tensor x, const NextSpec& next) const {
    const NormSpec input_norm = norm(layer.ffn_norm);
    const Tensor gated = backend.linear(x, *layer.gate_up,
                                        {.norm = &input_norm, .activation = spec_.activation, .gated = true});
    const Tensor y = project(backend, gated, *layer.down, {}, layer.post_ffn_norm, x, next);
    backend.release(gated);
    return y;
  }

  Tensor mix_experts(Backend& backend, const Layer& layer, Tensor x, const NextSpec& next) const {
    const ExpertsSpec& e = *spec_.experts;
    const NormSpec input_norm = norm(layer.ffn_norm);
    // The shared part reads x before the mixture takes its place.
    Tensor shared{};
    if (layer.shared_gate_up) {
      shared = backend.linear(x, *layer.shared_gate_up,
                              {.norm = &input_norm, .activation = spec_.activation, .gated = true});
    }
    const Tensor y = backend.moe(x, {.gate = e.gate,
                                     .norm = &input_norm,
                                     .router = layer.router.get(),
                                     .router_bias = layer.router_bias.get(),
                                     .selection_bias = layer.selection_bias.get(),
                                     .experts = layer.experts,
                                     .used = e.used,
                                     .groups = e.groups,
                                     .groups_used = e.groups_used,
                                     .normalize = e.normalize,
                                     .scale = e.scale,
                                     .activation = spec_.activation,
                                     .residual = x,
                                     .next = shared ? NextSpec{} : next});
    if (!shared) return y;
    const Tensor sum = backend.linear(shared, *layer.shared_down, {.residual = y, .next = next});
    backend.release(shared);
    return sum;
  }

  // x + W·y, or x + norm(W·y).
  Tensor project(Backend& backend, Tensor y, const Weight& weight, const WeightPtr& bias,
                 const WeightPtr& post_norm, Tensor x, const NextSpec& next) const {
    if (!post_norm) return backend.linear(y, weight, {.bias = bias.get(), .residual = x, .next = next});
    return backend.linear_add_norm(y, weight, bias.get(), norm(post_norm), x, next);
  }

  static bool at(const std::vector<bool>& layers, int index) {
    return !layers.empty() && layers[static_cast<std::size_t>(index)];
  }
  NormSpec norm(const WeightPtr& gain) const {
    return {.gain = gain.get(), .epsilon = config_.norm_epsilon, .unit_offset = spec_.unit_offset};
  }

  DecoderSpec spec_;
  Rope rope_;
  std::optional<Rope> local_rope_;
  WeightPtr embedding_;  // [vocabulary, hidden]
  std::vector<Layer> layers_;
  WeightPtr output_norm_;  // [hidden]
  WeightPtr head_;         // [vocabulary, hidden]; null: tied to embedding_
};

}  // namespace

ExpertsSpec read_experts(const ModelFile& file, const ModelConfig& config) {
  const std::string prefix = config.architecture + ".";
  ExpertsSpec e;
  e.count = small_int(file, prefix + "expert_count", 4096);
  e.used = small_int(file, prefix + "expert_used_count", e.count);
  e.feed_forward = small_int(file, prefix + "expert_feed_forward_length", 1 << 22, config.feed_forward);
  return e;
}

ModelConfig with_spec(ModelConfig config, const DecoderSpec& spec) {
  if (spec.latent) {
    config.kv_heads = 1;
    config.key_dim = spec.latent->key_dim();
    config.value_dim = spec.latent->rank;
  }
  const auto sliding = static_cast<std::size_t>(std::ranges::count(spec.sliding, true));
  if (spec.window == 0 || (!spec.sliding.empty() && sliding == 0)) return config;
  if (sliding == spec.sliding.size()) {
    config.window = spec.window;
  } else {
    config.layer_window = spec.window;
    config.windowed = spec.sliding;
  }
  return config;
}

std::unique_ptr<Model> make_decoder(const ModelFile& file, Backend& backend, WeightCache* cache,
                                    const ModelConfig& config, const DecoderSpec& spec) {
  return std::make_unique<Decoder>(file, backend, cache, config, spec);
}

}  // namespace mlxs
