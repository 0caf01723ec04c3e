// The limits of a generation request, checked in one place before anything is queued.
// Pure; throws kInvalidArgument naming field, value and range.
#pragma once

#include "mlxs/engine.h"

namespace mlxs {

void validate(const GenerateParams& params, int vocabulary);
void validate(const EngineOptions& options);
// Options whose ranges are advice: a value outside is moved to the nearest inside and logged.
void clamp(EngineOptions& options);

}  // namespace mlxs
