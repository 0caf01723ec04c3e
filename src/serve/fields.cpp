#include "serve/fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

namespace mlxs {
namespace {

constexpr std::size_t kShown = 40;  // bytes of a wrong value that a message repeats

std::string show(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kShown) text = text.substr(0, kShown) + "…";
  return text;
}

bool is_integer(const Json& value) {
  if (value.is_number_integer()) return true;
  if (!value.is_number_float()) return false;
  const double number = value.get<double>();
  return std::trunc(number) == number;
}

bool has_type(FieldType type, const Json& value) {
  switch (type) {
    case FieldType::kBoolean:
      return value.is_boolean();
    case FieldType::kInteger:
      return is_integer(value);
    case FieldType::kNumber:
      return value.is_number();
    case FieldType::kString:
      return value.is_string();
    case FieldType::kArray:
      return value.is_array();
    case FieldType::kObject:
      return value.is_object();
    case FieldType::kAny:
      return true;
  }
  return false;
}

std::string range_text(const FieldRule& rule) {
  if (std::isinf(rule.maximum)) return fmt::format("at least {}", rule.minimum);
  if (std::isinf(rule.minimum)) return fmt::format("at most {}", rule.maximum);
  return fmt::format("{} … {}", rule.minimum, rule.maximum);
}

}  // namespace

std::string_view field_type_name(FieldType type) {
  switch (type) {
    case FieldType::kBoolean:
      return "boolean";
    case FieldType::kInteger:
      return "integer";
    case FieldType::kNumber:
      return "number";
    case FieldType::kString:
      return "string";
    case FieldType::kArray:
      return "array";
    case FieldType::kObject:
      return "object";
    case FieldType::kAny:
      return "any";
  }
  return "any";
}

void refuse_field(std::string_view field, const std::string& what, const std::string& remedy) {
  throw Error(ErrorCode::kInvalidArgument, what, remedy, std::string(field));
}

void check_value(const FieldRule& rule, std::string_view path, const Json& value) {
  if (!has_type(rule.type, value)) {
    refuse_field(path, fmt::format("{} = {} has the wrong type", path, show(value)),
                 fmt::format("{} must be of type {}", path, field_type_name(rule.type)));
  }
  if (!rule.values.empty() &&
      std::ranges::find(rule.values, value.get_ref<const std::string&>()) == rule.values.end()) {
    refuse_field(path, fmt::format("{} = {} is not supported", path, show(value)),
                 fmt::format("use {}", fmt::join(rule.values, ", ")));
  }
  if (!value.is_number() || rule.parser_bounds) return;
  const double number = value.get<double>();
  if (number < rule.minimum || number > rule.maximum) {
    refuse_field(path, fmt::format("{} = {} is out of range", path, show(value)),
                 fmt::format("{} must be {}", path, range_text(rule)));
  }
}

Json rule_schema(const FieldRule& rule) {
  Json schema = rule.schema.empty() ? Json::object() : Json::parse(rule.schema);
  if (rule.type != FieldType::kAny) {
    schema["type"] = field_type_name(rule.type);
    if (!rule.is_required) schema["type"] = Json::array({field_type_name(rule.type), "null"});
  } else if (!rule.is_required && schema.contains("anyOf")) {
    schema["anyOf"].push_back({{"type", "null"}});
  }
  if (!rule.values.empty()) {
    schema["enum"] = rule.values;
    if (!rule.is_required) schema["enum"].push_back(nullptr);
  }
  if (std::isfinite(rule.minimum)) schema["minimum"] = rule.minimum;
  if (std::isfinite(rule.maximum)) schema["maximum"] = rule.maximum;
  if (!rule.about.empty()) schema["description"] = rule.about;
  return schema;
}

std::int64_t as_integer(std::string_view path, const Json& value) {
  check_value({.name = {}, .type = FieldType::kInteger}, path, value);
  constexpr double kTwo63 = 9223372036854775808.0;
  const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= std::uint64_t{INT64_MAX}
                    : value.is_number_float() ? value.get<double>() >= -kTwo63 && value.get<double>() < kTwo63
                                              : true;
  if (!fits) refuse_field(path, fmt::format("{} = {} does not fit 64 bits", path, show(value)));
  return value.is_number_float() ? static_cast<std::int64_t>(value.get<double>()) : value.get<std::int64_t>();
}

std::string as_string(std::string_view path, const Json& value) {
  check_value({.name = {}, .type = FieldType::kString}, path, value);
  return value.get<std::string>();
}

}  // namespace mlxs
