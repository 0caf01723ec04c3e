#include "serve/dialects.h"

#include "serve/anthropic_format.h"
#include "serve/ollama_format.h"

namespace mlxs {

ErrorBody error_body_of(std::string_view path) {
  if (path.starts_with("/api/")) return ollama_error_json;
  if (path == "/v1/messages" || path.starts_with("/v1/messages/")) return anthropic_error_json;
  return nullptr;
}

}  // namespace mlxs
