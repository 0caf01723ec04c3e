// The llama family (llama 2/3.x, mistral, smollm2, yi …; Touvron et al. 2023): pre-norm blocks of
// grouped-query attention with rotary positions and a SiLU-gated feed-forward, RMS norms, no biases, head
// tied to the embedding or not.
#include <fmt/format.h>

#include <cmath>

#include "mlxs/error.h"
#include "models/families.h"
#include "models/weight_loader.h"

namespace mlxs {
namespace {

struct Layer {
  WeightPtr attention_norm;  // [hidden]
  WeightPtr qkv;             // [(heads + 2·kv_heads)·head_dim, hidden]
  WeightPtr attention_out;   // [hidden, heads·head_dim]
  WeightPtr ffn_norm;        // [hidden]
  WeightPtr gate_up;         // [2·feed_forward, hidden]
  WeightPtr down;            // [hidden, feed_forward]
};

std::int32_t small_int(const ModelFile& file, std::string_view key, std::int64_t maximum,
                       std::optional<std::int64_t> fallback = {}) {
  const std::int64_t value = file.get_int(key, fallback);
  if (value < 1 || value > maximum) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: {} = {} is outside 1 … {}", file.path().string(), key, value, maximum),
                "the file's metadata is damaged: download or convert it again");
  }
  return static_cast<std::int32_t>(value);
}

void require(const ModelFile& file, bool holds, std::string_view what) {
  if (!holds) throw Error(ErrorCode::kModelLoad, fmt::format("{}: {}", file.path().string(), what));
}

ModelConfig read_config(const ModelFile& file) {
  ModelConfig c;
  c.architecture = file.architecture();
  const auto key = [&](std::string_view suffix) { return c.architecture + "." + std::string(suffix); };
  c.layers = small_int(file, key("block_count"), 1024);
  c.hidden = small_int(file, key("embedding_length"), 1 << 20);
  c.heads = small_int(file, key("attention.head_count"), 4096);
  c.kv_heads = small_int(file, key("attention.head_count_kv"), 4096, c.heads);
  c.feed_forward = small_int(file, key("feed_forward_length"), 1 << 22);
  c.context = small_int(file, key("context_length"), 1 << 27);
  require(file, c.heads % c.kv_heads == 0,
          fmt::format("{} heads cannot share {} KV heads evenly", c.heads, c.kv_heads));
  c.key_dim = small_int(file, key("attention.key_length"), 1 << 12, c.hidden / c.heads);
  c.value_dim = small_int(file, key("attention.value_length"), 1 << 12, c.hidden / c.heads);
  c.rope_dims = small_int(file, key("rope.dimension_count"), 1 << 12, c.key_dim);
  require(file, c.rope_dims <= c.key_dim && c.rope_dims % 2 == 0,
          fmt::format("{} rotated dimensions do not fit heads of {}", c.rope_dims, c.key_dim));
  c.norm_epsilon = static_cast<float>(file.get_float(key("attention.layer_norm_rms_epsilon")));
  c.rope_base = static_cast<float>(file.get_float(key("rope.freq_base"), 10000.0));
  const TensorInfo* table = file.find_tensor("token_embd.weight");
  require(file, table != nullptr && table->shape.size() == 2, "tensor 'token_embd.weight' is missing");
  c.vocabulary = static_cast<std::int32_t>(table->shape[0]);
  return c;
}

// θ_i = base^(-2i/d), with linear scaling and llama 3's per-frequency factors folded in.
std::vector<float> inverse_frequencies(const ModelFile& file, const ModelConfig& c, WeightLoader& load) {
  const std::string prefix = c.architecture + ".rope.scaling.";
  const std::string_view scaling = file.get_string(prefix + "type", "none");
  require(file, scaling == "none" || scaling == "linear",
          fmt::format("{}type = '{}' is not supported (none, linear)", prefix, scaling));
  const double stretch = scaling == "linear" ? file.get_float(prefix + "factor") : 1.0;
  const std::vector<float> factors = load.optional_floats("rope_freqs.weight", c.rope_dims / 2);
  std::vector<float> result(static_cast<std::size_t>(c.rope_dims) / 2);
  for (std::size_t i = 0; i < result.size(); ++i) {
    const double frequency =
        std::pow(static_cast<double>(c.rope_base), -2.0 * static_cast<double>(i) / c.rope_dims);
    result[i] =
        static_cast<float>(frequency / stretch / (factors.empty() ? 1.0 : static_cast<double>(factors[i])));
  }
  return result;
}

class Llama final : public Model {
 public:
  Llama(const ModelFile& file, Backend& backend, WeightCache* cache) {
    config_ = read_config(file);
    const ModelConfig& c = config_;
    WeightLoader load(file, backend, cache);
    frequencies_ = inverse_frequencies(file, c, load);
    // GGUF files keep rotated pairs side by side; the files that they were made of, half a head apart.
    interleaved_ = file.get_bool(c.architecture + ".rope.interleaved", true);
    embedding_ = load.embedding("token_embd.weight", c.vocabulary, c.hidden);
    for (int i = 0; i < c.layers; ++i) {
      const auto name = [&](std::string_view part) { return fmt::format("blk.{}.{}.weight", i, part); };
      layers_.push_back(Layer{
          .attention_norm = load.vector(name("attn_norm"), c.hidden),
          .qkv = load.stacked({{name("attn_q"), c.heads * c.key_dim},
                               {name("attn_k"), c.kv_heads * c.key_dim},
                               {name("attn_v"), c.kv_heads * c.value_dim}},
                              c.hidden),
          .attention_out = load.matrix(name("attn_output"), c.hidden, c.heads * c.value_dim),
          .ffn_norm = load.vector(name("ffn_norm"), c.hidden),
          .gate_up =
              load.stacked({{name("ffn_gate"), c.feed_forward}, {name("ffn_up"), c.feed_forward}}, c.hidden),
          .down = load.matrix(name("ffn_down"), c.hidden, c.feed_forward),
      });
    }
    output_norm_ = load.vector("output_norm.weight", c.hidden);
    if (load.has("output.weight")) head_ = load.matrix("output.weight", c.vocabulary, c.hidden);
    load.expect_all_used();
    weight_bytes_ = load.packed_bytes();
  }

  Tensor forward(Backend& backend) override {
    const ModelConfig& c = config_;
    AttentionSpec attention{
        .heads = c.heads, .kv_heads = c.kv_heads, .key_dim = c.key_dim, .value_dim = c.value_dim};
    attention.scale = 1.0f / std::sqrt(static_cast<float>(c.key_dim));
    attention.rope = {.dims = c.rope_dims, .interleaved = interleaved_, .inverse_frequencies = frequencies_};

    Tensor x = backend.embed(*embedding_);  // [num_rows, hidden]
    for (const Layer& layer : layers_) {
      const NormSpec attention_norm = norm(layer.attention_norm);
      const NormSpec ffn_norm = norm(layer.ffn_norm);
      const Tensor qkv = backend.linear(x, *layer.qkv, {.norm = &attention_norm});
      const Tensor mixed = backend.attention(qkv, attention);
      backend.release(qkv);
      x = backend.linear(mixed, *layer.attention_out, {.residual = x});
      backend.release(mixed);
      const Tensor gated = backend.linear(
          x, *layer.gate_up, {.norm = &ffn_norm, .activation = Activation::kSilu, .gated = true});
      x = backend.linear(gated, *layer.down, {.residual = x});
      backend.release(gated);
      ++attention.layer;
    }
    const NormSpec output_norm = norm(output_norm_);
    return backend.logits(backend.gather_sampled(x), head_ ? *head_ : *embedding_, &output_norm);
  }

 private:
  NormSpec norm(const WeightPtr& gain) const {
    return {.kind = NormSpec::Kind::kRms, .gain = gain.get(), .epsilon = config_.norm_epsilon};
  }

  std::vector<float> frequencies_;  // [rope_dims / 2]
  bool interleaved_ = true;
  WeightPtr embedding_;  // [vocabulary, hidden]
  std::vector<Layer> layers_;
  WeightPtr output_norm_;  // [hidden]
  WeightPtr head_;         // [vocabulary, hidden]; null: tied to embedding_
};

}  // namespace

std::unique_ptr<Model> load_llama(const ModelFile& file, Backend& backend, WeightCache* cache) {
  return std::make_unique<Llama>(file, backend, cache);
}

}  // namespace mlxs
