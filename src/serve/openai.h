// OpenAI's API: POST /v1/chat/completions, POST /v1/completions, GET /v1/models, GET /v1/models/{model}.
// The handlers may run on any thread; engine outlives the router.
#pragma once

#include "mlxs/engine.h"
#include "serve/router.h"
#include "serve/sampling_defaults.h"

namespace mlxs {

void add_openai_routes(Router& router, Engine& engine, SamplingDefaults defaults, int most_choices);

}  // namespace mlxs
