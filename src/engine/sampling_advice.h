// What a model file says of how to sample: generation_config.json, or GGUF's general.sampling.*. Pure but for
// a warning of each value that GenerateParams would not take.
#pragma once

#include "formats/model_file.h"
#include "mlxs/engine.h"

namespace mlxs {

SamplingAdvice sampling_advice(const ModelFile& file);

}  // namespace mlxs
