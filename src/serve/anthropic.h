// Anthropic's API: POST /v1/messages, POST /v1/messages/count_tokens.
// The handlers may run on any thread; engine and keeper outlive the router.
#pragma once

#include "mlxs/engine.h"
#include "serve/model_keeper.h"
#include "serve/router.h"
#include "serve/sampling_defaults.h"

namespace mlxs {

void add_anthropic_routes(Router& router, Engine& engine, ModelKeeper& keeper, SamplingDefaults defaults);

}  // namespace mlxs
