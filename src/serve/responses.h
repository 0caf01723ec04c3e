// OpenAI's responses API: POST /v1/responses, GET and DELETE /v1/responses/{id}, and its input_items. Keeps
// responses in memory for those who go on from them. The handlers may run on any thread; engine outlives the
// router.
#pragma once

#include "mlxs/engine.h"
#include "serve/router.h"
#include "serve/sampling_defaults.h"

namespace mlxs {

void add_responses_routes(Router& router, Engine& engine, SamplingDefaults defaults);

}  // namespace mlxs
