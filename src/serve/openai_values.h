// Fields of OpenAI's bodies whose values have several forms: each with its JSON Schema, which the field's
// description has. Pure: JSON in, values out; throws kInvalidArgument naming the field.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mlxs/engine.h"
#include "serve/fields.h"

namespace mlxs {

inline constexpr std::string_view kStopSchema = R"({"anyOf": [{"type": "string", "minLength": 1},
  {"type": "array", "maxItems": 16, "items": {"type": "string", "minLength": 1}}]})";
std::vector<std::string> read_stop(const Json& value);

// {"token id": bias}
inline constexpr std::string_view kBiasSchema = R"({"propertyNames": {"pattern": "^[0-9]{1,9}$"},
  "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}})";
std::vector<std::pair<std::int32_t, float>> read_logit_bias(const Json& value);

// A text, token ids, or a list of either.
inline constexpr std::string_view kPromptSchema = R"({"anyOf": [{"type": "string"},
  {"type": "array", "minItems": 1, "items": {"type": "string"}},
  {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}},
  {"type": "array", "minItems": 1, "items": {"type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": 2147483647}}}]})";
std::vector<Prompt> read_prompts(const Json& value);

}  // namespace mlxs
