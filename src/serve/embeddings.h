// POST /v1/embeddings, as OpenAI has it. The handler may run on any thread; engine outlives the router.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mlxs/engine.h"
#include "serve/fields.h"
#include "serve/router.h"

namespace mlxs {

Json embedding_request_schema();

struct EmbeddingRequest {
  EncodeParams params;
  std::optional<int> dimensions;
  bool base64 = false;
  std::vector<std::string> ignored;  // fields that nothing here reads
};

// Throws kInvalidJson and kInvalidArgument that name the byte or the field.
EmbeddingRequest parse_embedding_request(std::string_view body);

// "input" of every dialect: a string, a list of strings, token ids or a list of those.
std::vector<EncoderInput> read_encoder_inputs(std::string_view field, const Json& value);

// The first components, to length 1 again. Throws kInvalidArgument if the model has fewer.
void check_dimensions(const ModelInfo& model, std::optional<int> dimensions);
std::vector<float> shortened(std::vector<float> embedding, std::optional<int> dimensions);

void add_embedding_routes(Router& router, Engine& engine);

}  // namespace mlxs
