#include "config/show.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <deque>

#include "formats/near_names.h"
#include "mlxs/error.h"

namespace mlxs::config {
namespace {

constexpr const char* kMask = "********";

const Settings& defaults() {
  static const Settings settings;
  return settings;
}

std::string shown_value(const Key& key, const Value& value) {
  std::string text = to_text(value, key.type);
  if (text.empty()) return "(none)";
  return key.secret ? kMask : text;
}

std::string names_of(const Key& key) {
  std::vector<std::string> names;
  if (!key.flag_name.empty()) names.push_back(key.flag_name);
  if (!key.variable.empty() && key.variable != key.own_variable()) names.push_back(key.variable);
  names.push_back(key.own_variable());
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string describe(const Key& key) {
  std::string text = fmt::format("{}: {} (default: {})\n  {}\n  {}; sets {}\n", key.path, key.values(),
                                 shown_value(key, key.get(defaults())), key.meaning, names_of(key), key.sets);
  for (const Alias& alias : key.aliases) {
    text += fmt::format("  also in the file as {}{}\n", alias.path,
                        alias.factor == 1 ? "" : fmt::format(", times {:g}", alias.factor));
  }
  return text;
}

// A value as YAML and JSON read it back.
std::string yaml_value(const Key& key, const Value& value) {
  switch (key.type) {
    case Type::kBool:
      return std::get<bool>(value) ? "true" : "false";
    case Type::kText: {
      const auto& text = std::get<std::string>(value);
      const auto plain = [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '/';
      };
      return !text.empty() && std::ranges::all_of(text, plain) ? text : nlohmann::json(text).dump();
    }
    case Type::kList:
      return nlohmann::json(std::get<std::vector<std::string>>(value)).dump();
    case Type::kIntegers:
      return nlohmann::json(std::get<Integers>(value)).dump();
    case Type::kWeights: {
      nlohmann::json map = nlohmann::json::object();
      for (const auto& [name, weight] : std::get<Weights>(value)) map[name] = weight;
      return map.dump();
    }
    default:
      return to_text(value, key.type);
  }
}

struct Section {
  std::string name;
  const Key* key = nullptr;  // a leaf
  std::deque<Section> children;

  Section& child(const std::string& wanted) {
    const auto found = std::ranges::find(children, wanted, &Section::name);
    if (found != children.end()) return *found;
    children.push_back({.name = wanted, .key = nullptr, .children = {}});
    return children.back();
  }
};

void write(const Section& section, const std::string& indent, std::string& text) {
  for (const Section& child : section.children) {
    if (child.key == nullptr) {
      if (indent.empty()) text += "\n";
      text += fmt::format("{}{}:\n", indent, child.name);
      write(child, indent + "  ", text);
      continue;
    }
    const Key& key = *child.key;
    const bool any = key.type == Type::kText && key.choices.empty();
    text += fmt::format("{0}# {1}{2}\n{0}# {3}: {4}\n", indent, key.meaning,
                        any ? "" : fmt::format(" ({})", key.values()), child.name,
                        yaml_value(key, key.get(defaults())));
  }
}

bool is_below(std::string_view path, std::string_view section) {
  return path.starts_with(section) && path.size() > section.size() && path[section.size()] == '.';
}

}  // namespace

std::string Effective::shown() const { return shown_value(*key, value); }

std::string explain(const std::string& path) {
  std::string text;
  for (const Key& key : keys()) {
    const bool alias = std::ranges::any_of(key.aliases, [&path](const Alias& a) { return a.path == path; });
    if (key.path == path || alias || is_below(key.path, path)) text += describe(key);
  }
  for (const Absent& absent : absent_keys()) {
    if (is_below(absent.path, path))
      text += fmt::format("{}: not in this build: {}\n", absent.path, absent.reason);
  }
  if (text.empty()) {
    if (const Absent* absent = find_absent(path)) {
      return fmt::format("{}: not in this build: {}\n", path, absent->reason);
    }
    std::vector<std::string> paths;
    for (const Key& key : keys()) paths.push_back(key.path);
    const std::vector<std::string> near = near_names(path, paths);
    throw Error(ErrorCode::kNotFound, fmt::format("no key '{}'", path),
                near.empty() ? "`mlx-serving config --explain` lists all"
                             : fmt::format("did you mean {}?", fmt::join(near, " or ")));
  }
  return text;
}

std::string explain_all() {
  std::string text;
  for (const Key& key : keys()) text += describe(key);
  text += "\nNot in this build, and said by name where a file has them:\n";
  for (const Absent& absent : absent_keys()) text += fmt::format("  {}: {}\n", absent.path, absent.reason);
  for (const Absent& absent : absent_variables())
    text += fmt::format("  {}: {}\n", absent.path, absent.reason);
  return text;
}

nlohmann::json explain_json() {
  nlohmann::json all{{"keys", nlohmann::json::array()}, {"absent", nlohmann::json::array()}};
  for (const Key& key : keys()) {
    nlohmann::json aliases = nlohmann::json::array();
    for (const Alias& alias : key.aliases) aliases.push_back(alias.path);
    std::vector<std::string> variables;
    if (!key.variable.empty()) variables.push_back(key.variable);
    if (key.variable != key.own_variable()) variables.push_back(key.own_variable());
    all["keys"].push_back({{"key", key.path},
                           {"type", type_name(key.type)},
                           {"values", key.values()},
                           {"default", to_text(key.get(defaults()), key.type)},
                           {"meaning", key.meaning},
                           {"flag", key.flag_name},
                           {"variables", variables},
                           {"aliases", aliases},
                           {"sets", key.sets}});
  }
  for (const auto& list : {absent_keys(), absent_variables()}) {
    for (const Absent& absent : list)
      all["absent"].push_back({{"name", absent.path}, {"reason", absent.reason}});
  }
  return all;
}

nlohmann::json show_json(const Config& config) {
  constexpr const char* kFrom[] = {"default", "preset", "file", "environment", "flag"};
  nlohmann::json values = nlohmann::json::object();
  for (const Effective& e : config.effective) {
    nlohmann::json value;
    if (e.key->secret && !to_text(e.value).empty()) {
      value = kMask;
    } else if (const auto* weights = std::get_if<Weights>(&e.value)) {
      value = nlohmann::json::object();
      for (const auto& [name, weight] : *weights) value[name] = weight;
    } else {
      std::visit(
          [&value]<class T>(const T& v) {
            if constexpr (!std::is_same_v<T, Weights>) value = v;
          },
          e.value);
    }
    values[e.key->path] = {{"value", value}, {"from", kFrom[static_cast<int>(e.from)]}, {"where", e.where}};
  }
  return {{"file", config.file},
          {"environment", config.environment},
          {"values", values},
          {"warnings", config.warnings}};
}

std::string default_file() {
  Section top;
  for (const Key& key : keys()) {
    Section* section = &top;
    std::string rest = key.path;
    for (auto dot = rest.find('.'); dot != std::string::npos; dot = rest.find('.')) {
      section = &section->child(rest.substr(0, dot));
      rest = rest.substr(dot + 1);
    }
    section->child(rest).key = &key;
  }
  std::string text =
      "# What `mlx-serving serve` does, key by key; written by `mlx-serving config --defaults`.\n"
      "# Every key stands here with its default, commented out: to change one, take its `# ` away. A flag "
      "wins over a\n"
      "# variable (MLXS_ and the key, MLXS_SERVER_PORT; the scheduler's own MLX_ names too), that over this "
      "file.\n"
      "# `mlx-serving config --explain KEY` says more, `config --check FILE` reads a file, `config show` "
      "shows what holds.\n"
      "# Blocks `environments: {NAME: {…}}` with any of these keys apply where MLXS_ENV (else NODE_ENV) is "
      "NAME.\n";
  write(top, "", text);
  return text;
}

}  // namespace mlxs::config
