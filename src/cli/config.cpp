// `config`: what can be configured, whether a file is right, and what holds here and why.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/config_flags.h"
#include "cli/format.h"
#include "config/show.h"
#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

using config::Effective;

struct ConfigCommand {
  std::string key, file;
  bool json = false, strict = false, changed = false, defaults = false;
  ConfigFlags flags;  // of show
};

int explain(const ConfigCommand& command) {
  if (command.json) {
    fmt::print("{}\n", config::explain_json().dump(2));
  } else {
    fmt::print("{}", command.key.empty() ? config::explain_all() : config::explain(command.key));
  }
  return 0;
}

int print_defaults() {
  fmt::print("{}", config::default_file());
  return 0;
}

// Of the file alone: what the environment says is not its matter.
int check(const ConfigCommand& command) {
  const config::Config read =
      config::load({.file = command.file, .text = {}, .env = {}, .variables = {}, .flags = {}});
  int keys = 0;
  for (const Effective& effective : read.effective) keys += effective.from == Effective::From::kFile ? 1 : 0;
  for (const std::string& warning : read.warnings) fmt::print(stderr, "warning: {}\n", warning);
  const std::size_t warnings = read.warnings.size();
  fmt::print("{}: {} {}, {} {}\n", command.file, keys, keys == 1 ? "key" : "keys", warnings,
             warnings == 1 ? "warning" : "warnings");
  return command.strict && warnings > 0 ? 1 : 0;
}

std::string origin(const Effective& effective) {
  if (effective.from == Effective::From::kDefault && effective.where.empty()) return "default";
  return effective.where;
}

int show(const ConfigCommand& command) {
  const config::Config read = load_config(command.flags);
  for (const std::string& warning : read.warnings) fmt::print(stderr, "warning: {}\n", warning);
  if (command.json) {
    fmt::print("{}\n", config::show_json(read).dump(2));
    return 0;
  }
  fmt::print("file: {}{}\n\n", read.file.empty() ? "none" : read.file,
             read.environment.empty() ? "" : ", with environments." + read.environment);
  std::vector<std::vector<std::string>> table{{"KEY", "VALUE", "FROM"}};
  for (const Effective& effective : read.effective) {
    if (command.changed && effective.from == Effective::From::kDefault && effective.where.empty()) continue;
    table.push_back({effective.key->path, effective.shown(), origin(effective)});
  }
  fmt::print("{}", format_table(table));
  return 0;
}

}  // namespace

void add_config(CLI::App& app, Action& action) {
  auto what = std::make_shared<ConfigCommand>();
  CLI::App* command = app.add_subcommand("config", "Explain, check and show the configuration of serve");
  CLI::Option* explaining =
      command
          ->add_option("--explain", what->key, "Say what a key, a section or (without one) everything means")
          ->expected(0, 1)
          ->type_name("[KEY]");
  CLI::Option* checking =
      command->add_option("--check", what->file, "Say what is wrong with this file")->type_name("FILE");
  CLI::Option* defaults = command->add_flag("--defaults", what->defaults,
                                            "Print a configuration file with every key, commented out");
  command->add_flag("--json", what->json, "Print JSON (--explain)");
  command->add_flag("--strict", what->strict, "Fail on warnings too (--check)");
  checking->excludes(explaining)->excludes(defaults);
  defaults->excludes(explaining);
  command->footer(
      "A flag wins over a variable (every key has one: server.port is MLXS_SERVER_PORT), that over the "
      "file,\n"
      "that over the default. Values of variables and files that are out of range are moved inside, with a "
      "warning.\n\n"
      "Examples:\n"
      "  mlx-serving config --explain gpu_scheduler\n"
      "  mlx-serving config --check runtime.yaml\n"
      "  mlx-serving config show --changed\n"
      "  mlx-serving config --defaults > runtime.yaml");

  CLI::App* shown = command->add_subcommand("show", "What holds here, key by key, and where it comes from");
  shown->add_flag("--json", what->json, "Print JSON");
  shown->add_flag("--changed", what->changed, "Only what is not the default");
  add_config_flags(*shown, what->flags, "");
  shown->footer(
      "Takes the flags of serve, and shows what serve would make of them. Secrets are masked.\n\n"
      "Examples:\n"
      "  mlx-serving config show --changed\n"
      "  mlx-serving config show --config runtime.yaml --port 9000 --json");
  command->require_subcommand(0, 1);

  shown->callback([what, &action] { action = [what] { return show(*what); }; });
  command->callback([=, &action] {
    if (!command->get_subcommands().empty()) return;
    if (*checking) {
      action = [what] { return check(*what); };
    } else if (*defaults) {
      action = print_defaults;
    } else if (*explaining || what->json) {
      action = [what] { return explain(*what); };
    } else {
      throw CLI::RequiredError("--explain, --check, --defaults or show");
    }
  });
}

}  // namespace mlxs::cli
