// "metadata" as OpenAI has it: up to 16 labels that the client gives a request; GET /v1/requests/{id} shows
// them. Pure; throws kInvalidArgument.
#pragma once

#include <string>

#include "serve/fields.h"

namespace mlxs {

inline constexpr FieldRule kMetadataRule =
    field::object("metadata", "Labels of the request's own, shown by GET /v1/requests/{id}",
                  R"({"maxProperties": 16, "propertyNames": {"maxLength": 64},
                      "additionalProperties": {"type": "string", "maxLength": 512}})");

std::string read_metadata(const Json& value);  // the same as JSON text

}  // namespace mlxs
