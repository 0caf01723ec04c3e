// POST /tokenize and /detokenize in vLLM's shape, also at /v1/…: what a model makes of a text or a chat, and
// back. The handlers may run on any thread; engine and keeper outlive the router.
#pragma once

#include "mlxs/engine.h"
#include "serve/fields.h"
#include "serve/model_keeper.h"
#include "serve/router.h"

namespace mlxs {

Json tokenize_request_schema();
Json detokenize_request_schema();

void add_tokenize_routes(Router& router, Engine& engine, ModelKeeper& keeper);

}  // namespace mlxs
