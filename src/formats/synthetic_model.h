// A model without weights: the config.json of a published one, and random tensors made when they are asked
// for, in the quantization that it names (MLX's groups, FP8's blocks) or bf16. For measuring models that are
// not here. Values are such that activations stay of order 1 and routers choose at random. One thread. Throws
// kModelLoad.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "formats/hf_config.h"
#include "formats/model_content.h"

namespace mlxs {

class SyntheticTensors {
 public:
  // Adds the configuration, and the tensors that a loader looks for by name: embedding and head.
  SyntheticTensors(const std::filesystem::path& config_json, ModelContent& content);

  // Adds the tensor; its bytes live as long as this object.
  void add(std::string_view name, std::span<const std::int64_t> shape, ModelContent& content);

 private:
  using Bytes = std::vector<std::byte>;
  // kZero: the biases that centre codes; kEights, kEightScale: FP8.
  enum class Filling { kCodes, kNormal, kGain, kBias, kScale, kZero, kEights, kEightScale };

  // Random bytes of this kind that start where the name says, so that no two tensors are alike.
  std::span<const std::byte> bytes(Filling filling, std::size_t count, std::size_t start);
  void fill(Filling filling, Bytes& bytes) const;

  std::string path_;
  HfConfig settings_;
  bool unit_offset_ = false;
  std::vector<std::pair<Filling, std::unique_ptr<Bytes>>> pools_;  // what grew too small is kept: it is used
};

}  // namespace mlxs
