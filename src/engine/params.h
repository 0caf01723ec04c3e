// The limits of a generation request, checked in one place before anything is queued.
// Pure; throws kInvalidArgument naming field, value and range.
#pragma once

#include "mlxs/engine.h"

namespace mlxs {

void validate(const GenerateParams& params, int vocabulary);
void validate(const EngineOptions& options);

}  // namespace mlxs
