// Request bodies as tables: each field's name, type, range and meaning stand in one row beside its setter, so
// that checks, messages and GET /openapi.json come from the same place. Throws kInvalidArgument naming the
// field.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mlxs/error.h"

namespace mlxs {

using Json = nlohmann::json;

enum class FieldType : std::uint8_t { kBoolean, kInteger, kNumber, kString, kArray, kObject, kAny };
std::string_view field_type_name(FieldType type);  // as JSON Schema says it

// What every value of the field must be; a setter checks what a row cannot say.
struct FieldRule {
  std::string_view name;
  FieldType type = FieldType::kAny;
  double minimum = -std::numeric_limits<double>::infinity();  // numbers and integers; inclusive
  double maximum = std::numeric_limits<double>::infinity();
  std::string_view about = {};   // one sentence for readers of the API
  std::string_view schema = {};  // JSON Schema, as JSON: what the setter checks beyond the type
  std::span<const std::string_view> values = {};  // all that a string may be; empty: any
  bool is_required = false;                       // documentation; the parser says what is missing
  bool parser_bounds = false;  // minimum and maximum are documentation; the parser knows narrower ones

  constexpr FieldRule required() const {
    FieldRule rule = *this;
    rule.is_required = true;
    return rule;
  }
  constexpr FieldRule bounded_by_parser() const {
    FieldRule rule = *this;
    rule.parser_bounds = true;
    return rule;
  }
};

namespace field {  // rows read as: name, bounds, meaning, what else

constexpr FieldRule text(std::string_view name, std::string_view about, std::string_view schema = {}) {
  return {.name = name, .type = FieldType::kString, .about = about, .schema = schema};
}
constexpr FieldRule choice(std::string_view name, std::span<const std::string_view> values,
                           std::string_view about) {
  return {.name = name, .type = FieldType::kString, .about = about, .values = values};
}
constexpr FieldRule flag(std::string_view name, std::string_view about) {
  return {.name = name, .type = FieldType::kBoolean, .about = about};
}
constexpr FieldRule integer(std::string_view name, double minimum, double maximum, std::string_view about) {
  return {.name = name, .type = FieldType::kInteger, .minimum = minimum, .maximum = maximum, .about = about};
}
constexpr FieldRule number(std::string_view name, double minimum, double maximum, std::string_view about) {
  return {.name = name, .type = FieldType::kNumber, .minimum = minimum, .maximum = maximum, .about = about};
}
constexpr FieldRule list(std::string_view name, std::string_view about, std::string_view schema) {
  return {.name = name, .type = FieldType::kArray, .about = about, .schema = schema};
}
constexpr FieldRule object(std::string_view name, std::string_view about, std::string_view schema = {}) {
  return {.name = name, .type = FieldType::kObject, .about = about, .schema = schema};
}
constexpr FieldRule any(std::string_view name, std::string_view about, std::string_view schema) {
  return {.name = name, .type = FieldType::kAny, .about = about, .schema = schema};
}

}  // namespace field

template <class Target>
struct Field {
  FieldRule rule;
  void (*set)(Target& target, const Json& value);  // the value obeys the rule and is not null
};

[[noreturn]] void refuse_field(std::string_view field, const std::string& what,
                               const std::string& remedy = {});

// `path` names the value in messages: "temperature", "messages[2].role".
void check_value(const FieldRule& rule, std::string_view path, const Json& value);
// An integer within int64, also if written as 5.0.
std::int64_t as_integer(std::string_view path, const Json& value);
std::string as_string(std::string_view path, const Json& value);

// One row as a property of a JSON Schema; all rows as the schema of an object.
Json rule_schema(const FieldRule& rule);
template <class Target>
Json fields_schema(std::span<const Field<Target>> fields) {
  Json properties = Json::object(), required = Json::array();
  for (const Field<Target>& field : fields) {
    properties[std::string(field.rule.name)] = rule_schema(field.rule);
    if (field.rule.is_required) required.push_back(field.rule.name);
  }
  Json schema{{"type", "object"}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = std::move(required);
  return schema;
}

// The rows of two tables.
template <class Target, std::size_t kFirst, std::size_t kSecond>
constexpr std::array<Field<Target>, kFirst + kSecond> join_fields(const Field<Target> (&first)[kFirst],
                                                                  const Field<Target> (&second)[kSecond]) {
  std::array<Field<Target>, kFirst + kSecond> all{};
  std::copy(first, first + kFirst, all.begin());
  std::copy(second, second + kSecond, all.begin() + kFirst);
  return all;
}

// Sets every field of the object that has a row; null counts as absent. Returns the names that have none.
template <class Target>
std::vector<std::string> read_fields(const Json& object, std::span<const Field<Target>> fields,
                                     Target& target) {
  std::vector<std::string> unknown;
  for (const auto& [name, value] : object.items()) {
    if (value.is_null()) continue;
    const Field<Target>* row = nullptr;
    for (const Field<Target>& field : fields) {
      if (field.rule.name == name) row = &field;
    }
    if (row == nullptr) {
      unknown.push_back(name);
      continue;
    }
    check_value(row->rule, name, value);
    row->set(target, value);
  }
  return unknown;
}

}  // namespace mlxs
