// Ollama's API: /api/chat, /api/generate, /api/tags, /api/show, /api/ps, /api/pull, /api/version.
// A model that is on this disk is loaded when a request names it, and goes when keep_alive is over.
// The handlers may run on any thread; engine and keeper outlive the router.
#pragma once

#include "mlxs/engine.h"
#include "serve/fields.h"
#include "serve/model_keeper.h"
#include "serve/router.h"
#include "serve/sampling_defaults.h"

namespace mlxs {

Json show_request_schema();

void add_ollama_routes(Router& router, Engine& engine, ModelKeeper& keeper, SamplingDefaults defaults);

}  // namespace mlxs
