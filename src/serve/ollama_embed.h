// Ollama's POST /api/embed and, with one text, its older POST /api/embeddings. Any thread; throws
// kInvalidJson, kInvalidArgument naming the field, kModelNotFound.
#pragma once

#include "mlxs/engine.h"
#include "serve/fields.h"
#include "serve/http.h"
#include "serve/model_keeper.h"

namespace mlxs {

// As JSON Schemas.
Json ollama_embed_schema();
Json ollama_embeddings_schema();

Reply ollama_embed(Engine& engine, ModelKeeper& keeper, const HttpRequest& http);
Reply ollama_embeddings(Engine& engine, ModelKeeper& keeper, const HttpRequest& http);

}  // namespace mlxs
