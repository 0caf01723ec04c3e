// Structured output as clients ask for it: OpenAI's response_format, vLLM's structured_outputs and its older
// guided_* fields. Throws kInvalidArgument naming the field.
#pragma once

#include <optional>
#include <string_view>

#include "mlxs/engine.h"
#include "serve/fields.h"

namespace mlxs {

// {"type": "text" | "json_object" | "json_schema", "json_schema": {"schema": …}}; nullopt: text.
std::optional<StructuredOutput> read_response_format(const Json& value);
// Exactly one of json (a schema, also as a string), json_object, regex, choice, grammar.
StructuredOutput read_structured_outputs(const Json& value);
// One of those by name: "json", "regex", "choice", "grammar". path: the field in messages.
StructuredOutput read_constraint(std::string_view name, std::string_view path, const Json& value);

}  // namespace mlxs
