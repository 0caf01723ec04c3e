#include "config/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace mlxs::config {
namespace {

bool within(std::string_view path, std::string_view section) {
  return path == section || (path.starts_with(section) && path[section.size()] == '.');
}

}  // namespace

std::string Key::own_variable() const {
  std::string name = "MLXS_" + path;
  for (char& c : name) c = c == '.' || c == '-' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
  return name;
}

std::string Key::values(double factor) const {
  if (type == Type::kBool) return "on or off";
  if (!choices.empty()) {
    std::string text;
    for (std::size_t i = 0; i < choices.size(); ++i) {
      if (i > 0) text += i + 1 < choices.size() ? ", " : " or ";
      text += choices[i].empty() ? "none" : choices[i];
    }
    return text;
  }
  std::string text;
  if (has_range()) {
    const auto show = [this, factor](double number) {
      return type == Type::kBytes    ? to_text(Value(static_cast<std::int64_t>(number)), type)
             : type == Type::kNumber ? fmt::format("{:g}", number / factor)
             : factor != 1           ? fmt::format("{}", number / factor)
                                     : fmt::format("{:.0f}", number);
    };
    text = fmt::format("{} … {}", show(low), show(high));
  } else {
    text = type_name(type);
  }
  if (!unit.empty()) text += factor == 1000 && unit == "ms" ? " s" : " " + unit;
  if (!zero.empty()) text += fmt::format("; 0: {}", zero);
  return text;
}

std::span<const Key> keys() {
  static const std::vector<Key> all = [] {
    std::vector<Key> rows;
    for (std::vector<Key> part :
         {server_keys(), telemetry_keys(), engine_keys(), metal_keys(), scheduler_keys()}) {
      std::ranges::move(part, std::back_inserter(rows));
    }
    return rows;
  }();
  return all;
}

const Key* find_key(std::string_view path) {
  const auto found = std::ranges::find(keys(), path, &Key::path);
  return found == keys().end() ? nullptr : &*found;
}

bool is_section(std::string_view path) {
  return std::ranges::any_of(keys(), [path](const Key& key) {
    return within(key.path, path) ||
           std::ranges::any_of(key.aliases, [path](const Alias& alias) { return within(alias.path, path); });
  });
}

const Absent* find_absent(std::string_view path) {
  const Absent* longest = nullptr;
  for (const Absent& absent : absent_keys()) {
    if (within(path, absent.path) && (longest == nullptr || absent.path.size() > longest->path.size())) {
      longest = &absent;
    }
  }
  return longest;
}

}  // namespace mlxs::config
