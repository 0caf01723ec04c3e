// A model: its configuration, its weights in backend layout, and its forward pass over one ragged batch.
// Owned by the engine; used by the engine thread only. A family is one file (llama.cpp, …) that registers a
// loader here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/ops.h"
#include "backend/weight_cache.h"
#include "formats/model_file.h"

namespace mlxs {

struct ModelConfig {
  std::string architecture;
  std::int32_t layers = 0;
  std::int32_t hidden = 0;
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t key_dim = 0;    // per head
  std::int32_t value_dim = 0;  // per head
  std::int32_t feed_forward = 0;
  std::int32_t vocabulary = 0;
  std::int32_t context = 0;  // tokens the model was trained for
  float norm_epsilon = 1e-5f;
  float rope_base = 10000.0f;
  std::int32_t rope_dims = 0;
  // Tokens that attention sees at most, itself included, in every layer; 0: some see all.
  std::int32_t window = 0;
  // The same of `windowed` layers, where others see all; 0 and none: all layers are alike.
  std::int32_t layer_window = 0;
  std::vector<bool> windowed = {};
};

class Model {
 public:
  virtual ~Model() = default;
  const ModelConfig& config() const { return config_; }
  // Between begin_step and end_step: logits of the batch's sampled rows, [num_sampled, vocabulary].
  virtual Tensor forward(Backend& backend) = 0;
  std::size_t weight_bytes() const { return weight_bytes_; }

 protected:
  ModelConfig config_;
  std::size_t weight_bytes_ = 0;
};

// Reads the config, checks every shape against it, packs the weights. Throws kModelLoad: an architecture
// without a family (lists the supported), a missing tensor (names it), a shape that contradicts the config.
std::unique_ptr<Model> load_model(const ModelFile& file, Backend& backend, WeightCache* cache);
// The config of a decoder as load_model() would have it, without its weights; nullopt: no decoder of a known
// family. Throws kModelLoad as load_model() does.
std::optional<ModelConfig> decoder_config(const ModelFile& file);
std::vector<std::string_view> supported_architectures();

}  // namespace mlxs
