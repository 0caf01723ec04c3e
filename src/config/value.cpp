#include "config/value.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "base/bytes.h"
#include "mlxs/error.h"

namespace mlxs::config {
namespace {

constexpr double kLargest = 9e18;  // what an int64 holds without a doubt

std::optional<double> to_number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<Value> to_integer(double number) {
  if (number != std::trunc(number)) return std::nullopt;
  return static_cast<std::int64_t>(std::clamp(number, -kLargest, kLargest));
}

std::optional<Value> to_bool(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  for (const char* yes : {"on", "true", "yes", "1"})
    if (text == yes) return true;
  for (const char* no : {"off", "false", "no", "0"})
    if (text == no) return false;
  return std::nullopt;
}

std::optional<Value> to_bytes(const std::string& text) {
  if (const auto number = to_number(text)) return to_integer(*number);
  try {
    return static_cast<std::int64_t>(std::min<std::uint64_t>(parse_bytes(text), 9'000'000'000'000'000'000));
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const auto comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    if (!part.empty()) parts.emplace_back(part);
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
  }
  return parts;
}

std::optional<Value> to_weights(const Raw& raw) {
  std::vector<std::pair<std::string, std::string>> entries = raw.entries;
  const std::vector<std::string> parts = raw.kind == Raw::Kind::kScalar ? split(raw.scalar) : raw.items;
  for (const std::string& part : parts) {
    const auto equals = part.rfind('=');
    if (equals == std::string::npos) return std::nullopt;
    entries.emplace_back(part.substr(0, equals), part.substr(equals + 1));
  }
  Weights weights;
  for (const auto& [name, text] : entries) {
    const auto number = to_number(text);
    if (!number || name.empty()) return std::nullopt;
    weights.emplace_back(name, *number);
  }
  return weights;
}

std::optional<Value> to_integers(const Raw& raw) {
  Integers integers;
  for (const std::string& part : raw.kind == Raw::Kind::kList ? raw.items : split(raw.scalar)) {
    const auto number = to_number(part);
    const auto whole = number ? to_integer(*number) : std::nullopt;
    if (!whole) return std::nullopt;
    integers.push_back(std::get<std::int64_t>(*whole));
  }
  return integers;
}

}  // namespace

std::optional<Value> parse(Type type, const Raw& raw) {
  if (type == Type::kList && raw.kind == Raw::Kind::kList) return raw.items;
  if (type == Type::kWeights && raw.kind != Raw::Kind::kNull) return to_weights(raw);
  if (type == Type::kIntegers && raw.kind == Raw::Kind::kList) return to_integers(raw);
  if (raw.kind != Raw::Kind::kScalar) return std::nullopt;
  switch (type) {
    case Type::kBool:
      return to_bool(raw.scalar);
    case Type::kInteger:
      if (const auto number = to_number(raw.scalar)) return to_integer(*number);
      return std::nullopt;
    case Type::kNumber:
      if (const auto number = to_number(raw.scalar)) return *number;
      return std::nullopt;
    case Type::kBytes:
      return to_bytes(raw.scalar);
    case Type::kText:
      return raw.scalar;
    case Type::kList:
      return split(raw.scalar);
    case Type::kIntegers:
      return to_integers(raw);
    case Type::kWeights:
      break;
  }
  return std::nullopt;
}

std::string to_text(const Raw& raw) {
  switch (raw.kind) {
    case Raw::Kind::kNull:
      return "null";
    case Raw::Kind::kScalar:
      return raw.scalar.size() <= 200 ? raw.scalar : raw.scalar.substr(0, 200) + "…";
    case Raw::Kind::kList:
      return fmt::format("[{}]", fmt::join(raw.items, ", "));
    case Raw::Kind::kMap:
      break;
  }
  std::vector<std::string> parts;
  for (const auto& [name, text] : raw.entries) parts.push_back(fmt::format("{}: {}", name, text));
  return fmt::format("{{{}}}", fmt::join(parts, ", "));
}

std::string to_text(const Value& value) {
  struct Writer {
    std::string operator()(bool v) const { return v ? "on" : "off"; }
    std::string operator()(std::int64_t v) const { return fmt::format("{}", v); }
    std::string operator()(double v) const { return fmt::format("{:g}", v); }
    std::string operator()(const std::string& v) const { return v; }
    std::string operator()(const std::vector<std::string>& v) const {
      return fmt::format("{}", fmt::join(v, ", "));
    }
    std::string operator()(const Integers& v) const { return fmt::format("{}", fmt::join(v, ", ")); }
    std::string operator()(const Weights& v) const {
      std::vector<std::string> parts;
      for (const auto& [name, weight] : v) parts.push_back(fmt::format("{}={:g}", name, weight));
      return fmt::format("{}", fmt::join(parts, ", "));
    }
  };
  return std::visit(Writer{}, value);
}

std::string to_text(const Value& value, Type type) {
  if (type == Type::kBytes) return exact_bytes(static_cast<std::uint64_t>(std::get<std::int64_t>(value)));
  return to_text(value);
}

std::string_view type_name(Type type) {
  switch (type) {
    case Type::kBool:
      return "on/off";
    case Type::kInteger:
      return "integer";
    case Type::kNumber:
      return "number";
    case Type::kBytes:
      return "bytes";
    case Type::kText:
      return "text";
    case Type::kList:
      return "list";
    case Type::kIntegers:
      return "integers";
    case Type::kWeights:
      return "weights";
  }
  return "";
}

}  // namespace mlxs::config
