#include "cli/config_flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "config/layers.h"
#include "config/table.h"
#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

using config::Key;
using config::Raw;
using config::Type;

std::string label(const Key& key) {
  if (!key.choices.empty()) {
    std::vector<std::string> named = key.choices;
    std::erase_if(named, [](const std::string& choice) { return choice.empty(); });
    return fmt::format("TEXT:{{{}}}", fmt::join(named, ","));
  }
  std::string range;
  if (key.has_range() && key.zero.empty()) {
    range = fmt::format(":{}..{}", key.low / key.flag_factor, key.high / key.flag_factor);
  }
  switch (key.type) {
    case Type::kInteger:
      return (key.flag_factor == 1 ? "INT" : "FLOAT") + range;
    case Type::kNumber:
      return "FLOAT" + range;
    case Type::kBytes:
      return "BYTES";
    case Type::kWeights:
      return "NAME=WEIGHT";
    default:
      return "TEXT";
  }
}

std::string default_of(const Key& key) {
  const config::Value value = key.get(config::Settings{});
  if (const auto* whole = std::get_if<std::int64_t>(&value)) {
    if (*whole == 0 && !key.zero.empty()) return "";
    if (key.flag_factor != 1) return fmt::format("{:g}", static_cast<double>(*whole) / key.flag_factor);
  }
  return to_text(value, key.type);
}

std::string help(const Key& key) {
  std::string text = key.meaning;
  if (key.flag_factor == 1000) text += ", in seconds";
  if (!key.zero.empty())
    text += fmt::format(" ({}: {})", default_of(key).empty() ? "default" : "0", key.zero);
  return text;
}

// What CLI11 reports as wrong usage, with status 2.
void check(const Key& key, const Raw& raw) {
  const std::string problem = config::flag_problem(key, raw);
  if (!problem.empty()) throw CLI::ValidationError(problem);
}

void add_flag(CLI::App& command, ConfigFlags& flags, const Key& key, const std::string& group) {
  Raw& given = flags.given[key.path];
  if (key.type == Type::kBool) {
    const std::string means = key.flag_means ? "on" : "off";
    const std::string text = key.flag_means ? key.meaning : "Turns this off: " + key.meaning;
    command
        .add_flag_callback(
            key.flag_name, [&given, means] { given = Raw::of(means); }, text)
        ->group(group);
    return;
  }
  CLI::Option* option = nullptr;
  if (key.type == Type::kList || key.type == Type::kWeights) {
    option = command.add_option_function<std::vector<std::string>>(
        key.flag_name,
        [&given, &key](const std::vector<std::string>& items) {
          given.kind = Raw::Kind::kList;
          given.items = items;
          check(key, given);
        },
        help(key));
    option->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  } else {
    option = command.add_option_function<std::string>(
        key.flag_name,
        [&given, &key](const std::string& text) {
          given = Raw::of(text);
          check(key, given);
        },
        help(key));
    option->default_str(default_of(key));
  }
  option->type_name(label(key))->group(group);
}

}  // namespace

void add_config_flags(CLI::App& command, ConfigFlags& flags, const std::string& group) {
  command
      .add_option(
          "--config", flags.file,
          "Configuration file (default: config/runtime.yaml or ~/.config/mlx-serving/runtime.yaml, if there)")
      ->type_name("FILE");
  command.add_flag("--no-config", flags.no_file, "Read no configuration file")->excludes("--config");
  for (const Key& key : config::keys()) {
    if (key.flag_name.empty()) continue;
    const bool tells = key.path.starts_with("log.") || key.path.starts_with("telemetry.");
    add_flag(command, flags, key, tells && !group.empty() ? "Logs, metrics, traces" : group);
  }
}

config::Config load_config(const ConfigFlags& flags) {
  config::Sources sources = config::process_sources();
  sources.file = flags.no_file ? "" : flags.file.empty() ? config::find_config_file() : flags.file;
  for (const auto& [path, raw] : flags.given) {
    if (raw.kind != Raw::Kind::kNull) sources.flags.emplace(path, raw);
  }
  return config::load(sources);
}

}  // namespace mlxs::cli
