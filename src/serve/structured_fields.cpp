#include "serve/structured_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

namespace mlxs {
namespace {

using Kind = StructuredOutput::Kind;

constexpr std::array<std::string_view, 5> kConstraints{"json", "json_object", "regex", "choice", "grammar"};

// A schema comes as JSON or as a string that holds it.
std::string schema_text(std::string_view path, const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_object() && !value.is_boolean()) {
    refuse_field(path, fmt::format("{} has the wrong type", path),
                 fmt::format("{} must be a JSON schema: an object", path));
  }
  return value.dump();
}

}  // namespace

StructuredOutput read_constraint(std::string_view name, std::string_view path, const Json& value) {
  if (name == "json") return {.kind = Kind::kJsonSchema, .text = schema_text(path, value)};
  if (name == "regex") return {.kind = Kind::kRegex, .text = as_string(path, value)};
  if (name == "grammar") return {.kind = Kind::kGrammar, .text = as_string(path, value)};
  if (name == "choice") {
    check_value({.name = {}, .type = FieldType::kArray}, path, value);
    for (std::size_t i = 0; i < value.size(); ++i) as_string(fmt::format("{}[{}]", path, i), value[i]);
    return {.kind = Kind::kChoice, .text = value.dump()};
  }
  check_value({.name = {}, .type = FieldType::kBoolean}, path, value);
  if (!value.get<bool>()) {
    refuse_field(path, fmt::format("{} is false", path), "leave it out to have no constraint");
  }
  return {.kind = Kind::kJsonObject, .text = {}};
}

std::optional<StructuredOutput> read_response_format(const Json& value) {
  const std::string type = as_string("response_format.type", value.value("type", Json()));
  if (type == "text") return std::nullopt;
  if (type == "json_object") return StructuredOutput{.kind = Kind::kJsonObject, .text = {}};
  if (type != "json_schema") {
    refuse_field("response_format.type", fmt::format("response_format.type = '{}' is not supported", type),
                 "use text, json_object or json_schema");
  }
  const Json format = value.value("json_schema", Json());
  if (format.is_null()) {
    refuse_field("response_format.json_schema", "response_format.json_schema is missing",
                 "put an object with the JSON schema there, as its schema");
  }
  check_value({.name = {}, .type = FieldType::kObject}, "response_format.json_schema", format);
  if (!format.contains("schema")) {
    refuse_field("response_format.json_schema.schema", "response_format.json_schema.schema is missing",
                 "put the JSON schema there");
  }
  return read_constraint("json", "response_format.json_schema.schema", format["schema"]);
}

StructuredOutput read_structured_outputs(const Json& value) {
  std::optional<StructuredOutput> result;
  for (const auto& [name, constraint] : value.items()) {
    if (constraint.is_null()) continue;
    const std::string path = "structured_outputs." + name;
    if (std::ranges::find(kConstraints, name) == kConstraints.end()) {
      refuse_field(path, fmt::format("{} is not supported", path),
                   fmt::format("use one of {}", fmt::join(kConstraints, ", ")));
    }
    if (result) {
      refuse_field("structured_outputs", "structured_outputs has more than one constraint", "send one");
    }
    result = read_constraint(name, path, constraint);
  }
  if (!result) {
    refuse_field("structured_outputs", "structured_outputs is empty",
                 fmt::format("send one of {}", fmt::join(kConstraints, ", ")));
  }
  return *std::move(result);
}

}  // namespace mlxs
