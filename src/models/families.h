// The loaders of all model families, one file each. A new family adds a line here and one in model.cpp's
// table.
#pragma once

#include <memory>

#include "models/model.h"

namespace mlxs {

std::unique_ptr<Model> load_llama(const ModelFile& file, Backend& backend, WeightCache* cache);

}  // namespace mlxs
