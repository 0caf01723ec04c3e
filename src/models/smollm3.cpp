// SmolLM3: llama in which every fourth layer has no positions (NoPE).
#include "models/decoder.h"
#include "models/families.h"

namespace mlxs {

DecoderSpec smollm3_spec(const ModelFile& file, const ModelConfig& config) {
  DecoderSpec spec;
  spec.interleaved_rope = true;
  const auto* listed = file.find_ints(config.architecture + ".rope.layers");
  require(file, listed == nullptr || listed->size() == static_cast<std::size_t>(config.layers),
          "no_rope_layers does not name every layer");
  for (std::size_t i = 0; i < static_cast<std::size_t>(config.layers); ++i)
    spec.rotated.push_back(listed != nullptr ? (*listed)[i] != 0 : (i + 1) % 4 != 0);
  return spec;
}

}  // namespace mlxs
