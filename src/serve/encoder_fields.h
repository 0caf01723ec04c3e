// What requests to encoders have in common, in every dialect.
#pragma once

#include <climits>
#include <optional>
#include <string_view>

#include "mlxs/engine.h"
#include "serve/fields.h"

namespace mlxs {

inline constexpr double kMostDimensions = 1 << 20;
inline constexpr double kMostTokens = 1 << 24;

inline constexpr std::string_view kTruncateAbout =
    "Cut longer texts to so many tokens, -1: to the model's limit; else they are refused";

// -1: to the model's own limit.
inline std::optional<int> truncation(const Json& value) {
  const auto tokens = static_cast<int>(as_integer("truncate_prompt_tokens", value));
  if (tokens == 0) {
    refuse_field("truncate_prompt_tokens", "truncate_prompt_tokens = 0 leaves nothing",
                 "use -1 or 1 and more");
  }
  return tokens < 0 ? INT_MAX : tokens;
}

inline constexpr std::string_view kEncoderInputSchema = R"({"anyOf": [{"type": "string"},
  {"type": "array", "minItems": 1, "maxItems": 2048, "items": {"type": "string"}},
  {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}},
  {"type": "array", "minItems": 1, "maxItems": 2048, "items": {"type": "array", "minItems": 1,
    "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}}}]})";

// The model makes scores only.
void require_embeddings(const ModelInfo& model);

}  // namespace mlxs
