// One configuration value: as it was written (Raw) and as what it means (Value). Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace mlxs::config {

enum class Type {
  kBool,     // on, off, true, false, yes, no, 1, 0
  kInteger,  // whole numbers
  kNumber,
  kBytes,  // whole numbers, or "2GiB"
  kText,
  kList,      // of texts; "a,b" where there is one text only
  kIntegers,  // "32,64" where there is one text only
  kWeights,   // names and numbers; "a=2,b=1" where there is one text only
};

using Weights = std::vector<std::pair<std::string, double>>;
using Integers = std::vector<std::int64_t>;
using Value =
    std::variant<bool, std::int64_t, double, std::string, std::vector<std::string>, Integers, Weights>;

struct Raw {
  enum class Kind { kNull, kScalar, kList, kMap } kind = Kind::kNull;
  std::string scalar;                                        // kScalar
  std::vector<std::string> items;                            // kList, of scalars
  std::vector<std::pair<std::string, std::string>> entries;  // kMap, of scalars

  static Raw of(std::string text) {
    return {.kind = Kind::kScalar, .scalar = std::move(text), .items = {}, .entries = {}};
  }
};
std::string to_text(const Raw& raw);  // as a message quotes it

// nullopt: it is no value of that type. Numbers of any size are read, so that they can be clamped; the words
// for infinity and "not a number" are none.
std::optional<Value> parse(Type type, const Raw& raw);

std::string to_text(const Value& value);             // "on", "0.75", "a, b", "alice=2"
std::string to_text(const Value& value, Type type);  // bytes as "10MiB"
std::string_view type_name(Type type);               // "on/off", "integer", "number", "bytes", …

}  // namespace mlxs::config
