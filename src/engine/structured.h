// The grammar of a request with structured output. Any thread; throws kInvalidArgument with the field
// "structured" that says what is wrong in the grammar.
#pragma once

#include <memory>

#include "engine/loaded_model.h"
#include "mlxs/engine.h"
#include "text/grammar.h"

namespace mlxs {

std::unique_ptr<GrammarMatcher> matcher_for(const LoadedModel& model, const StructuredOutput& structured);

}  // namespace mlxs
