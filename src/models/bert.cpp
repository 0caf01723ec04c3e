// BERT and RoBERTa (Devlin et al. 2018, Liu et al. 2019): encoders of texts. Every token sees every other,
// positions are learned, a layer norm stands behind each half of a block, everything has a bias. What comes
// out is pooled to one vector a text, or scored by a head (cross-encoders: pooler, tanh, one output).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "backend/encoder_ops.h"
#include "mlxs/error.h"
#include "models/config_reader.h"
#include "models/encoder.h"
#include "models/weight_loader.h"

namespace mlxs {
namespace {

struct Norm {
  WeightPtr gain, bias;  // [hidden]
};
struct Dense {
  WeightPtr weight, bias;
};
struct Layer {
  Dense qkv, attention_out;  // [3·hidden, hidden], [hidden, hidden]
  Norm attention_norm;
  Dense up, down;  // [feed_forward, hidden], [hidden, feed_forward]
  Norm norm;
};
// On the host: a row or two a request.
struct Head {
  std::vector<float> dense, dense_bias;  // [hidden, hidden], [hidden]
  std::vector<float> out, out_bias;      // [1, hidden], [1]
};

float dot(std::span<const float> a, std::span<const float> b) {
  float sum = 0.0f;
  for (std::size_t i = 0; i < b.size(); ++i) sum += a[i] * b[i];
  return sum;
}

class Bert final : public Encoder {
 public:
  Bert(const ModelFile& file, Backend& backend, WeightCache* cache, const ModelConfig& config) {
    config_ = config;
    const ModelConfig& c = config_;
    const std::string prefix = c.architecture + ".";
    spec_.pooling = static_cast<EncoderSpec::Pooling>(file.get_int(prefix + "pooling_type", 1) - 1);
    spec_.token_types = small_int(file, prefix + "token_type_count", 16, 2);
    spec_.double_separator = c.architecture == "roberta";
    WeightLoader load(file, backend, cache);
    embedding_ = load.embedding("token_embd.weight", c.vocabulary, c.hidden);
    positions_ = positions(load, file, backend, cache);
    embedding_norm_ = norm(load, "token_embd_norm");
    for (int i = 0; i < c.layers; ++i) layers_.push_back(layer(load, fmt::format("blk.{}.", i)));
    spec_.scores = load.has("cls.output.weight");
    if (spec_.scores) load_head(file, load);
    if (!spec_.scores && load.has("cls.weight")) {  // the pooler: of heads only
      load.whole("cls.weight", {c.hidden, c.hidden});
      load.whole("cls.bias", {c.hidden});
    }
    load.expect_all_used();
    weight_bytes_ = load.packed_bytes() + positions_->packed_bytes();
  }

  Tensor forward(Backend& backend) override {
    Tensor x = backend.embed(*embedding_);  // [num_rows, hidden]
    x = normed(backend, dynamic_cast<EncoderOps&>(backend).add_positions(x, *positions_), embedding_norm_);
    for (const Layer& layer : layers_) {
      // One layer of KV serves all: a step's keys and values are of no use to later ones.
      const AttentionSpec attention{.layer = 0,
                                    .heads = config_.heads,
                                    .kv_heads = config_.heads,
                                    .key_dim = config_.key_dim,
                                    .value_dim = config_.value_dim,
                                    .scale = 1.0f / std::sqrt(static_cast<float>(config_.key_dim)),
                                    .causal = false};
      const Tensor qkv =
          backend.linear(x, *layer.qkv.weight, {.bias = layer.qkv.bias.get(), .for_attention = true});
      const Tensor mixed = backend.attention(qkv, attention);
      backend.release(qkv);
      x = backend.linear(mixed, *layer.attention_out.weight,
                         {.bias = layer.attention_out.bias.get(), .residual = x});
      backend.release(mixed);
      x = normed(backend, x, layer.attention_norm);
      const Tensor inner =
          backend.linear(x, *layer.up.weight, {.bias = layer.up.bias.get(), .activation = Activation::kGelu});
      x = backend.linear(inner, *layer.down.weight, {.bias = layer.down.bias.get(), .residual = x});
      backend.release(inner);
      x = normed(backend, x, layer.norm);
    }
    return x;
  }

  float score(std::span<const float> hidden) const override {
    const std::size_t size = hidden.size();
    std::vector<float> pooled(size);
    for (std::size_t i = 0; i < size; ++i)
      pooled[i] =
          std::tanh(head_.dense_bias[i] + dot(std::span(head_.dense).subspan(i * size, size), hidden));
    return 1.0f / (1.0f + std::exp(-(head_.out_bias[0] + dot(head_.out, pooled))));
  }

 private:
  Norm norm(WeightLoader& load, const std::string& name) const {
    return {load.vector(name + ".weight", config_.hidden), load.vector(name + ".bias", config_.hidden)};
  }
  // One table of positions and token types: row type · context + i is the position's plus the type's.
  WeightPtr positions(WeightLoader& load, const ModelFile& file, Backend& backend, WeightCache* cache) const {
    constexpr std::string_view kName = "position_embd.weight", kTypes = "token_types.weight";
    const std::int64_t context = config_.context, hidden = config_.hidden, types = spec_.token_types;
    const std::int64_t skip = file.get_int(config_.architecture + ".position_offset", 0);
    const TensorInfo* stored = file.find_tensor(kName);
    const std::int64_t rows = stored != nullptr && !stored->shape.empty() ? stored->shape.front() : 0;
    const std::vector<float> place = values_of(load.whole(kName, {std::max(rows, context + skip), hidden}));
    std::vector<float> kind(static_cast<std::size_t>(types * hidden));
    if (load.has(kTypes)) kind = values_of(load.whole(kTypes, {types, hidden}));
    std::vector<float> table;
    table.reserve(static_cast<std::size_t>(types * context * hidden));
    for (std::int64_t type = 0; type < types; ++type) {
      for (std::int64_t i = skip * hidden; i < (context + skip) * hidden; ++i) {
        table.push_back(place[static_cast<std::size_t>(i)] +
                        kind[static_cast<std::size_t>(type * hidden + i % hidden)]);
      }
    }
    const RawWeight raw{.name = "position_embd@types",
                        .type = DType::kF32,
                        .rows = types * context,
                        .columns = hidden,
                        .bytes = std::as_bytes(std::span(table))};
    return backend.prepare({&raw, 1}, WeightUse::kEmbedding, cache);
  }

  static Dense dense(WeightLoader& load, const std::string& name, std::int64_t rows, std::int64_t columns) {
    return {load.matrix(name + ".weight", rows, columns), load.vector(name + ".bias", rows)};
  }

  Layer layer(WeightLoader& load, const std::string& block) const {
    const std::int64_t hidden = config_.hidden, inner = config_.feed_forward;
    const auto part = [&](const char* name, const char* kind) { return block + name + kind; };
    Layer layer;
    layer.qkv.weight = load.stacked({{part("attn_q", ".weight"), hidden},
                                     {part("attn_k", ".weight"), hidden},
                                     {part("attn_v", ".weight"), hidden}},
                                    hidden);
    layer.qkv.bias = load.stacked_vector({{part("attn_q", ".bias"), hidden},
                                          {part("attn_k", ".bias"), hidden},
                                          {part("attn_v", ".bias"), hidden}});
    layer.attention_out = dense(load, block + "attn_output", hidden, hidden);
    layer.attention_norm = norm(load, block + "attn_output_norm");
    layer.up = dense(load, block + "ffn_up", inner, hidden);
    layer.down = dense(load, block + "ffn_down", hidden, inner);
    layer.norm = norm(load, block + "layer_output_norm");
    return layer;
  }

  void load_head(const ModelFile& file, WeightLoader& load) {
    const std::int64_t labels = file.find_tensor("cls.output.weight")->shape.front();
    if (labels != 1) {
      throw Error(ErrorCode::kModelLoad,
                  fmt::format("{}: the model sorts texts into {} classes", file.path().string(), labels),
                  "encoders without a head (embeddings) or with one output (rerankers) are supported");
    }
    const std::int64_t hidden = config_.hidden;
    head_ = {.dense = values_of(load.whole("cls.weight", {hidden, hidden})),
             .dense_bias = values_of(load.whole("cls.bias", {hidden})),
             .out = values_of(load.whole("cls.output.weight", {1, hidden})),
             .out_bias = values_of(load.whole("cls.output.bias", {1}))};
  }

  Tensor normed(Backend& backend, Tensor x, const Norm& norm) const {
    const Tensor y = backend.norm(x, {.kind = NormSpec::Kind::kLayer,
                                      .gain = norm.gain.get(),
                                      .bias = norm.bias.get(),
                                      .epsilon = config_.norm_epsilon});
    backend.release(x);
    return y;
  }

  WeightPtr embedding_, positions_;  // [vocabulary, hidden], [token_types·context, hidden]
  Norm embedding_norm_;
  std::vector<Layer> layers_;
  Head head_;
};

}  // namespace

std::unique_ptr<Model> load_bert(const ModelFile& file, Backend& backend, WeightCache* cache) {
  if (dynamic_cast<EncoderOps*>(&backend) == nullptr) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: encoders do not run on the backend '{}'", file.path().string(),
                            backend.device().name),
                "serve it with --backend cpu");
  }
  const ModelConfig config = read_config(file);
  const std::int64_t pooling = file.get_int(config.architecture + ".pooling_type", 1);
  require(file, pooling >= 1 && pooling <= 3,
          fmt::format("pooling_type = {} is not supported (1 mean, 2 first token, 3 last token)", pooling));
  require(file, config.key_dim * config.heads == config.hidden,
          "heads and hidden size contradict each other");
  return std::make_unique<Bert>(file, backend, cache, config);
}

}  // namespace mlxs
