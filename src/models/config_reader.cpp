#include "models/config_reader.h"

#include <fmt/format.h>

#include <cmath>

#include "mlxs/error.h"

namespace mlxs {

std::int32_t small_int(const ModelFile& file, std::string_view key, std::int64_t maximum,
                       std::optional<std::int64_t> fallback) {
  const std::int64_t value = file.get_int(key, fallback);
  if (value < 1 || value > maximum) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: {} = {} is outside 1 … {}", file.path().string(), key, value, maximum),
                "the file's metadata is damaged: download or convert it again");
  }
  return static_cast<std::int32_t>(value);
}

float positive(const ModelFile& file, std::string_view key, std::optional<double> fallback) {
  const double value = file.get_float(key, fallback);
  if (!std::isfinite(value) || value <= 0.0) {
    throw Error(ErrorCode::kModelLoad,
                fmt::format("{}: {} = {} is no positive number", file.path().string(), key, value),
                "the file's metadata is damaged: download or convert it again");
  }
  return static_cast<float>(value);
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
  const std::string rms = key("attention.layer_norm_rms_epsilon"),
                    layer = key("attention.layer_norm_epsilon");
  c.norm_epsilon = static_cast<float>(file.get_float(file.has(rms) || !file.has(layer) ? rms : layer));
  c.rope_base = positive(file, key("rope.freq_base"), 10000.0);
  const TensorInfo* table = file.find_tensor("token_embd.weight");
  require(file, table != nullptr && table->shape.size() == 2, "tensor 'token_embd.weight' is missing");
  c.vocabulary = static_cast<std::int32_t>(table->shape[0]);
  return c;
}

std::int32_t window_of(const ModelFile& file, const ModelConfig& config) {
  const std::string key = config.architecture + ".attention.sliding_window";
  if (!file.has(key) || file.get_int(key) == 0) return 0;
  return small_int(file, key, 1 << 27);
}

std::vector<bool> sliding_layers(const ModelFile& file, const ModelConfig& config, std::int32_t pattern) {
  if (window_of(file, config) == 0) return {};
  std::vector<bool> sliding(static_cast<std::size_t>(config.layers));
  const std::string prefix = config.architecture + ".attention.";
  if (const auto* listed = file.find_ints(prefix + "sliding_layers")) {
    require(file, listed->size() == sliding.size(),
            fmt::format("{}sliding_layers names {} layers of {}", prefix, listed->size(), config.layers));
    for (std::size_t i = 0; i < sliding.size(); ++i) sliding[i] = (*listed)[i] != 0;
    return sliding;
  }
  pattern = small_int(file, prefix + "sliding_window_pattern", 1024, pattern);
  for (std::size_t i = 0; i < sliding.size(); ++i)
    sliding[i] = (i + 1) % static_cast<std::size_t>(pattern) != 0;
  return sliding;
}

std::vector<bool> layers_from(const ModelFile& file, const ModelConfig& config, std::string_view key) {
  const std::string name = config.architecture + "." + std::string(key);
  if (window_of(file, config) == 0 || !file.has(name)) return {};
  const std::int64_t first = file.get_int(name);
  std::vector<bool> layers(static_cast<std::size_t>(config.layers));
  for (std::size_t i = 0; i < layers.size(); ++i) layers[i] = static_cast<std::int64_t>(i) >= first;
  return layers;
}

}  // namespace mlxs
