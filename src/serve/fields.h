// Request bodies as tables: each field's name, type and range stand in one row beside its setter, so that
// checks, messages and, later, documentation come from the same place. Throws kInvalidArgument naming the
// field.
#pragma once

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
};

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
