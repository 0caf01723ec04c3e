// Anthropic's API: POST /v1/messages, POST /v1/messages/count_tokens.
// The handlers may run on any thread; engine outlives the router.
#pragma once

#include "mlxs/engine.h"
#include "serve/router.h"
#include "serve/sampling_defaults.h"

namespace mlxs {

void add_anthropic_routes(Router& router, Engine& engine, SamplingDefaults defaults);

}  // namespace mlxs
