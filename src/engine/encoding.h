// From a request to an encoder to its task in the engine thread's inbox: checks, tokens, limits. Any thread;
// throws kInvalidArgument naming the field, kContextOverflow naming the input. clock: outlives the inbox's
// thread.
#pragma once

#include <memory>

#include "base/clock.h"
#include "engine/inbox.h"
#include "engine/loaded_model.h"
#include "mlxs/engine.h"

namespace mlxs {

std::unique_ptr<Encoding> begin_encoding(const std::shared_ptr<LoadedModel>& model,
                                         const std::shared_ptr<Inbox>& inbox, const EncodeParams& params,
                                         const Clock& clock);

// An encoder was asked to generate text.
[[noreturn]] void refuse_generation(const ModelInfo& model);

}  // namespace mlxs
