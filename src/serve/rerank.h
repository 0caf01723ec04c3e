// POST /v1/rerank (Jina's and Cohere's shape, also at /rerank, /v2/rerank) and POST /v1/score (vLLM's, also
// at /score), where an encoder is loaded: its head scores pairs from 0 to 1; without a head the score is the
// cosine of the embeddings. The handlers may run on any thread; engine outlives the router.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mlxs/engine.h"
#include "serve/fields.h"
#include "serve/router.h"

namespace mlxs {

Json rerank_request_schema();
Json score_request_schema();

struct RerankRequest {
  std::string model;
  std::string query;
  std::vector<std::string> documents;
  std::optional<int> top_n;
  bool return_documents = true;
  std::optional<int> truncate_to;
  std::vector<std::string> ignored;
};
struct ScoreRequest {
  std::string model;
  std::vector<std::string> first, second;  // as many of the first as of the second, or one
  std::optional<int> truncate_to;
  std::vector<std::string> ignored;
};

// Throw kInvalidJson and kInvalidArgument that name the byte or the field.
RerankRequest parse_rerank_request(std::string_view body);
ScoreRequest parse_score_request(std::string_view body);

void add_rerank_routes(Router& router, Engine& engine);

}  // namespace mlxs
