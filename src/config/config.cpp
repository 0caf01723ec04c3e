#include "config/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "config/check.h"
#include "config/layers.h"
#include "config/yaml_file.h"
#include "formats/near_names.h"
#include "mlxs/error.h"

namespace mlxs::config {
namespace {

constexpr std::string_view kBlocks = "environments.";

// Every name that a file may have, for "did you mean".
std::vector<std::string> all_paths() {
  std::vector<std::string> paths;
  for (const Key& key : keys()) {
    paths.push_back(key.path);
    for (const Alias& alias : key.aliases) paths.push_back(alias.path);
  }
  return paths;
}

std::string after_last_dot(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// Near as a whole, or with a right name in the wrong section.
std::string did_you_mean(const std::string& path) {
  const std::vector<std::string> paths = all_paths();
  std::vector<std::string> near = near_names(path, paths);
  for (const std::string& other : paths) {
    if (near.size() < 3 && after_last_dot(other) == after_last_dot(path) &&
        after_last_dot(path) != "enabled" && std::ranges::find(near, other) == near.end()) {
      near.push_back(other);
    }
  }
  return near.empty() ? "`mlx-serving config --explain` lists all"
                      : fmt::format("did you mean {}?", fmt::join(near, " or "));
}

// The absent ones of one file, a line for each row of the list.
class AbsentSeen {
 public:
  void add(const Absent& absent, const FileEntry& entry, const std::string& file) {
    Seen& seen = seen_[absent.path];
    if (seen.count++ == 0) {
      order_.push_back(&absent);
      seen.where = fmt::format("{}:{}: {}", file, entry.line, entry.path);
    }
  }
  void warn(std::vector<std::string>& warnings) const {
    for (const Absent* absent : order_) {
      const Seen& seen = seen_.at(absent->path);
      const std::string more =
          seen.count > 1 ? fmt::format(" and {} more of {}", seen.count - 1, absent->path) : "";
      warnings.push_back(fmt::format("{}{}: not in this build, so it changes nothing: {}", seen.where, more,
                                     absent->reason));
    }
  }

 private:
  struct Seen {
    int count = 0;
    std::string where;
  };
  std::map<std::string_view, Seen> seen_;
  std::vector<const Absent*> order_;
};

std::string without_block(const std::string& path) {
  if (!path.starts_with(kBlocks)) return path;
  const auto dot = path.find('.', kBlocks.size());
  return dot == std::string::npos ? path : path.substr(dot + 1);
}

bool is_leaf(std::string_view path) {
  const Name name = find_name(without_block(std::string(path)));
  return name.key != nullptr;
}

void read_file(const Sources& sources, Config& config, Layers& layers) {
  const std::vector<FileEntry> entries =
      read_yaml(sources.text ? *sources.text : read_config_text(sources.file), sources.file, is_leaf);
  config.file = sources.file;
  const auto variable = [&sources](const char* name) {
    return sources.env ? sources.env(name) : std::nullopt;
  };
  const std::string wanted = variable("MLXS_ENV").value_or(variable("NODE_ENV").value_or(""));
  std::set<std::string> blocks;
  AbsentSeen absent_seen;
  for (const FileEntry& entry : entries) {
    const std::string path = without_block(entry.path);
    std::string block;
    if (path.size() != entry.path.size()) {
      block = entry.path.substr(kBlocks.size(), entry.path.size() - path.size() - kBlocks.size() - 1);
      blocks.insert(block);
    }
    const std::string where = fmt::format("{}:{}", sources.file, entry.line);
    if (const Name name = find_name(path); name.key != nullptr) {
      const Rank rank = block.empty() ? Rank::kFile : Rank::kFileBlock;
      layers.add(name, entry.value, rank, where, block.empty() || block == wanted);
    } else if (entry.value.kind == Raw::Kind::kNull && (is_section(path) || path == "environments")) {
      continue;  // a section of which every key is commented out
    } else if (const Absent* absent = find_absent(path)) {
      absent_seen.add(*absent, entry, sources.file);
    } else {
      layers.refuse(fmt::format("{}: no key '{}' ({})", where, entry.path, did_you_mean(path)));
    }
  }
  absent_seen.warn(config.warnings);
  if (blocks.contains(wanted)) {
    config.environment = wanted;
  } else if (const auto named = variable("MLXS_ENV"); named && !named->empty()) {
    layers.refuse(fmt::format("MLXS_ENV={}: {} has no environments.{} ({})", *named, sources.file, *named,
                              blocks.empty() ? "it has no `environments` at all"
                                             : fmt::format("it has {}", fmt::join(blocks, ", "))));
  }
}

void read_environment(const Sources& sources, Config& config, Layers& layers) {
  if (!sources.env) return;
  std::vector<std::string> known;
  for (const Key& key : keys()) {
    for (const std::string& name : {key.own_variable(), key.variable}) {
      if (name.empty() || std::ranges::find(known, name) != known.end()) continue;
      known.push_back(name);
      const auto value = sources.env(name);
      if (value && !value->empty()) {
        layers.add({.key = &key}, Raw::of(*value), Rank::kEnvironment, name, true);
      }
    }
  }
  for (const Absent& absent : absent_variables()) {
    known.emplace_back(absent.path);
    if (const auto value = sources.env(std::string(absent.path)); value && !value->empty()) {
      config.warnings.push_back(
          fmt::format("{}: not in this build, so it changes nothing: {}", absent.path, absent.reason));
    }
  }
  for (const std::string& name :
       sources.variables) {  // mistyped by a letter or two; others' are none of ours
    if (!name.starts_with("MLX") || std::ranges::find(known, name) != known.end()) continue;
    for (const std::string& right : known) {
      if (edit_distance(name, right) > 2) continue;
      config.warnings.push_back(
          fmt::format("{} is no variable of this program; did you mean {}?", name, right));
      break;
    }
  }
}

}  // namespace

Sources process_sources() {
  Sources sources;
  sources.env = [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    const std::string_view text = *variable;
    sources.variables.emplace_back(text.substr(0, text.find('=')));
  }
  return sources;
}

const Effective& Config::of(std::string_view path) const {
  const auto found =
      std::ranges::find_if(effective, [path](const Effective& e) { return e.key->path == path; });
  if (found == effective.end()) throw Error(ErrorCode::kInternal, fmt::format("no key {}", path));
  return *found;
}

Config load(const Sources& sources) {
  Config config;
  Layers layers;
  if (!sources.file.empty()) read_file(sources, config, layers);
  read_environment(sources, config, layers);
  for (const auto& [path, raw] : sources.flags) {
    const Key* key = find_key(path);
    if (key == nullptr) throw Error(ErrorCode::kInternal, fmt::format("a flag sets no key: {}", path));
    layers.add({.key = key}, raw, Rank::kFlag, key->flag_name, true);
  }
  config.effective = layers.resolve(config.settings, config.warnings);
  check_together(config);
  return config;
}

std::string find_config_file() {
  std::vector<std::filesystem::path> places{"config/runtime.yaml"};
  const char* xdg = std::getenv("XDG_CONFIG_HOME");
  const char* home = std::getenv("HOME");
  if (xdg != nullptr && *xdg != '\0') {
    places.emplace_back(std::filesystem::path(xdg) / "mlx-serving" / "runtime.yaml");
  } else if (home != nullptr && *home != '\0') {
    places.emplace_back(std::filesystem::path(home) / ".config" / "mlx-serving" / "runtime.yaml");
  }
  for (const std::filesystem::path& place : places) {
    std::error_code failed;
    if (std::filesystem::is_regular_file(place, failed)) return place.string();
  }
  return {};
}

}  // namespace mlxs::config
