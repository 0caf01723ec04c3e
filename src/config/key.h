// One row of the table of keys: its name in the file, its variable, its flag, what values it takes and which
// field of Settings it sets. Rows are written as sentences:
//   MLXS_KEY("server.port", server.port).range(0, 65535).flag("--port").says("Port; 0 takes a free one")
#pragma once

#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "config/settings.h"
#include "config/value.h"

namespace mlxs::config {

struct Alias {  // another name of the same thing in the file
  std::string path;
  double factor = 1;  // of its unit: seconds for milliseconds are 1000
};

struct Key {
  std::string path;  // "gpu_scheduler.batch_window_ms"
  Type type = Type::kText;
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  std::string zero;  // what 0 means, where that lies outside of low … high; empty: it does not
  std::vector<std::string> choices;  // of a text; empty: any
  std::string unit;                  // "ms"; empty: none
  std::string meaning;               // one line
  std::string variable;              // of the environment, beside own_variable()
  std::string flag_name;             // of `serve`; empty: none
  double flag_factor = 1;            // the flag's unit in the key's: seconds are 1000 ms
  bool flag_means = true;            // what a flag without a value sets
  bool secret = false;
  std::vector<Alias> aliases;
  std::string sets;  // the field: "engine.max_running"
  std::function<Value(const Settings&)> get;
  std::function<void(Settings&, const Value&)> set;

  std::string own_variable() const;  // "MLXS_SERVER_PORT"
  bool has_range() const { return high < std::numeric_limits<double>::infinity(); }
  // "0.75 … 5 ms", "auto, cpu or cuda", "on or off". factor: of the unit to say it in; "1 … 60 s" with 1000.
  std::string values(double factor = 1) const;

  Key range(double least, double most) && { return low = least, high = most, std::move(*this); }
  Key or_zero(std::string means) && { return zero = std::move(means), std::move(*this); }
  Key one_of(std::vector<std::string> all) && { return choices = std::move(all), std::move(*this); }
  Key in(std::string name) && { return unit = std::move(name), std::move(*this); }
  Key says(std::string text) && { return meaning = std::move(text), std::move(*this); }
  Key env(std::string name) && { return variable = std::move(name), std::move(*this); }
  Key bytes() && { return type = Type::kBytes, std::move(*this); }
  Key hidden() && { return secret = true, std::move(*this); }
  Key flag(std::string name, double factor = 1) && {
    return flag_name = std::move(name), flag_factor = factor, std::move(*this);
  }
  Key off_flag(std::string name) && {
    return flag_name = std::move(name), flag_means = false, std::move(*this);
  }
  Key also(std::string other, double factor = 1) && {
    return aliases.push_back({std::move(other), factor}), std::move(*this);
  }
};

// A key that sets what `access` gives of Settings; its type follows from the field's.
template <class Access>
Key bound(std::string path, std::string sets, Access access) {
  using Field = std::remove_cvref_t<decltype(access(std::declval<Settings&>()))>;
  Key key{.path = std::move(path), .sets = std::move(sets)};
  const auto bind = [&key, access]<class Stored>(Type type, std::type_identity<Stored>) {
    key.type = type;
    key.get = [access](const Settings& s) { return Value(static_cast<Stored>(access(s))); };
    key.set = [access](Settings& s, const Value& v) { access(s) = static_cast<Field>(std::get<Stored>(v)); };
  };
  if constexpr (std::is_same_v<Field, bool>) {
    bind(Type::kBool, std::type_identity<bool>());
  } else if constexpr (std::is_integral_v<Field>) {
    bind(Type::kInteger, std::type_identity<std::int64_t>());
  } else if constexpr (std::is_floating_point_v<Field>) {
    bind(Type::kNumber, std::type_identity<double>());
  } else if constexpr (std::is_same_v<Field, std::string>) {
    bind(Type::kText, std::type_identity<std::string>());
  } else if constexpr (std::is_same_v<Field, std::vector<int>>) {
    key.type = Type::kIntegers;
    key.get = [access](const Settings& s) { return Value(Integers(access(s).begin(), access(s).end())); };
    key.set = [access](Settings& s, const Value& v) {
      access(s).assign(std::get<Integers>(v).begin(), std::get<Integers>(v).end());
    };
  } else if constexpr (std::is_same_v<Field, Weights>) {
    bind(Type::kWeights, std::type_identity<Weights>());
  } else {
    bind(Type::kList, std::type_identity<std::vector<std::string>>());
  }
  return key;
}
#define MLXS_KEY(path, field) ::mlxs::config::bound(path, #field, [](auto& s) -> auto& { return s.field; })

}  // namespace mlxs::config
