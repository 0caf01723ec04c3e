// `ps`: the servers that are registered in a fleet's registry now.
#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/format.h"
#include "fleet/registry.h"

namespace mlxs::cli {
namespace {

struct PsFlags {
  std::string registry;
  bool json = false;
};

int ps(const PsFlags& flags) {
  RedisClient redis(RedisUrl::parse(flags.registry));
  const std::vector<Instance> instances = list_instances(redis);
  if (flags.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const Instance& instance : instances)
      list.push_back(nlohmann::json::parse(instance_to_json(instance)));
    fmt::print("{}\n", list.dump(2));
    return 0;
  }
  const auto now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  std::vector<std::vector<std::string>> rows{{"ID", "ENDPOINT", "MODELS", "VERSION", "STARTED"}};
  for (const Instance& instance : instances) {
    rows.push_back({instance.id, instance.endpoint, fmt::format("{}", fmt::join(instance.models, ",")),
                    instance.version, format_age(instance.started_unix_s, now)});
  }
  fmt::print("{}", format_table(rows));
  return 0;
}

}  // namespace

void add_ps(CLI::App& app, Action& action) {
  auto flags = std::make_shared<PsFlags>();
  CLI::App* command = app.add_subcommand("ps", "List the live servers of a registry");
  command
      ->add_option("--registry", flags->registry,
                   "Redis or Valkey: redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]")
      ->required();
  command->add_flag("--json", flags->json, "Print JSON");
  command->footer("Examples:\n  mlx-serving ps --registry redis://127.0.0.1:6379");
  command->callback([flags, &action] { action = [flags] { return ps(*flags); }; });
}

}  // namespace mlxs::cli
