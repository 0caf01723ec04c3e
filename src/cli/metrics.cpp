// `metrics`: every metric that a server exports, from the registry itself.
#include <fmt/format.h>

#include "cli/telemetry_commands.h"
#include "telemetry/metrics.h"

namespace mlxs::cli {

void add_metrics(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("metrics", "List the metrics of GET /metrics: a table in Markdown");
  command->callback([&action] {
    action = [] {
      fmt::print("| metric | type | labels | meaning |\n|---|---|---|---|\n{}", metrics_reference());
      return 0;
    };
  });
}

}  // namespace mlxs::cli
