// The rotary embedding that a model file asks for, its scaling folded into the frequencies: none, linear,
// dynamic, llama3, yarn, longrope. Computed once, at load. Throws kModelLoad on another type or damaged
// values.
#pragma once

#include <vector>

#include "backend/ops.h"
#include "models/model.h"
#include "models/weight_loader.h"

namespace mlxs {

struct Rope {
  std::vector<float> inverse_frequencies;  // [dims/2]
  bool interleaved = false;
  float magnitude = 1.0f;

  RopeSpec spec() const {
    return {.dims = 2 * static_cast<std::int32_t>(inverse_frequencies.size()),
            .interleaved = interleaved,
            .inverse_frequencies = inverse_frequencies,
            .magnitude = magnitude};
  }
};

// YaRN's growth of the scores in units of 0.1·ln(factor): of the rotated dims, and of all.
struct YarnMagnitudes {
  double rotated = 1.0, all = 0.0;
};
YarnMagnitudes yarn_magnitudes(const ModelFile& file, const ModelConfig& config);

// interleaved: what files of this family mean that do not say. Takes rope tables from `load` if it has any.
Rope read_rope(const ModelFile& file, const ModelConfig& config, WeightLoader& load, bool interleaved);
// Without scaling, at this base: the local layers of Gemma 3.
Rope plain_rope(const ModelConfig& config, float base, bool interleaved);

}  // namespace mlxs
