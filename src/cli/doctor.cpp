// `version` and `doctor`: what this program is and what it found on this machine.
#include <fmt/format.h>

#include <memory>
#include <string>

#include "cli/commands.h"
#include "cli/format.h"
#include "formats/catalog.h"
#include "mlxs/engine.h"

namespace mlxs::cli {
namespace {

int doctor(const std::string& backend) {
  EngineOptions options;
  options.backend = backend;
  const auto engine = Engine::create(options);
  const Catalog catalog;
  fmt::print("{}", format_table({{"version", MLXS_VERSION},
                                 {"device", engine->device_description()},
                                 {"cache", cache_directory().string()},
                                 {"models", fmt::format("{} in the cache", catalog.list().size())}}));
  return 0;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto backend = std::make_shared<std::string>("auto");
  CLI::App* command = app.add_subcommand("doctor", "Say what this machine offers and what will be used");
  command->add_option("--backend", *backend, "Where to compute: auto, cpu, mlx (if built with it)")
      ->capture_default_str();
  command->footer("Examples:\n  mlx-serving doctor\n  MLXS_CPU_ISA=avx2 mlx-serving doctor");
  command->callback([backend, &action] { action = [backend] { return doctor(*backend); }; });
}

void add_version(CLI::App& app, Action& action) {
  app.add_subcommand("version", "Print the version")->callback([&action] {
    action = [] {
      fmt::print("mlx-serving {}\n", MLXS_VERSION);
      return 0;
    };
  });
}

}  // namespace mlxs::cli
