// The program: parses the command line, runs one command, turns every error into one line and an exit status.
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/telemetry_commands.h"
#include "formats/near_names.h"
#include "mlxs/error.h"

namespace {

constexpr int kUsage = 2;

// CLI11 reports a mistyped command as a missing one.
std::string unknown_command(const CLI::App& app) {
  const std::vector<std::string> rest = app.remaining();
  if (rest.empty() || rest.front().starts_with('-')) return {};
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  const std::vector<std::string> near = mlxs::near_names(rest.front(), names);
  return fmt::format("no command '{}'{}", rest.front(),
                     near.empty() ? "" : "; did you mean " + near.front() + "?");
}

// CLI11 counts --help as a parse error too; that one goes to stdout and is no failure.
int explain(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) return app.exit(error);
  const CLI::App* command = &app;
  std::string name = app.get_name();
  for (auto chosen = app.get_subcommands(); !chosen.empty(); chosen = command->get_subcommands()) {
    command = chosen.front();
    name += " " + command->get_name();
  }
  const std::string unknown = command == &app ? unknown_command(app) : "";
  fmt::print(stderr, "error: {} (see: {} --help)\n", unknown.empty() ? error.what() : unknown, name);
  return kUsage;
}

int refuse_stdout(int reason) {
  fmt::print(stderr, "error: stdout cannot be written: {}\n", std::strerror(reason));
  return 1;
}

// What was printed may still wait to be written, or have failed to be, without a word.
int finish(int status) {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return status;
  return refuse_stdout(errno != 0 ? errno : EIO);
}

}  // namespace

int main(int argc, char** argv) {
  signal(SIGXFSZ, SIG_IGN);  // a limit of file sizes is an error code of write(), as a full disk is
  mlxs::init_logging();
  CLI::App app("Serves large language models on this machine.", "mlx-serving");
  app.footer(
      "Start here:\n"
      "  mlx-serving run smollm2 \"What is the capital of France?\"\n"
      "  mlx-serving chat smollm2\n"
      "  mlx-serving serve smollm2\n\n"
      "Exit status: 0 done, 1 it failed (the reason is on stderr), 2 wrong usage.\n"
      "Environment: MLXS_LOG_LEVEL (trace, debug, info, warn, error, critical, off), MLXS_LOG_FORMAT "
      "(pretty, json), "
      "MLXS_CACHE_DIR, MLXS_CPU_ISA, MLXS_CPU_HUGE_PAGES (off).");
  app.set_version_flag("--version", std::string("mlx-serving ") + MLXS_VERSION);
  app.require_subcommand(1);

  mlxs::cli::Action action;
  mlxs::cli::add_serve(app, action);
  mlxs::cli::add_run(app, action);
  mlxs::cli::add_chat(app, action);
  mlxs::cli::add_pull(app, action);
  mlxs::cli::add_ls(app, action);
  mlxs::cli::add_show(app, action);
  mlxs::cli::add_plan(app, action);
  mlxs::cli::add_rm(app, action);
  mlxs::cli::add_ps(app, action);
  mlxs::cli::add_why(app, action);
  mlxs::cli::add_config(app, action);
  mlxs::cli::add_trace(app, action);
  mlxs::cli::add_metrics(app, action);
  mlxs::cli::add_bench(app, action);
  mlxs::cli::add_sim(app, action);
  mlxs::cli::add_doctor(app, action);
  mlxs::cli::add_collect_env(app, action);
  mlxs::cli::add_version(app, action);

  try {
    std::vector<std::string> arguments =
        mlxs::cli::spell_out_synthetic(std::vector<std::string>(argv + 1, argv + std::max(argc, 1)));
    std::ranges::reverse(arguments);  // as CLI11 wants them
    app.parse(std::move(arguments));
    return finish(action());
  } catch (const CLI::ParseError& error) {
    return finish(explain(app, error));
  } catch (const mlxs::Error& error) {
    fmt::print(stderr, "error: {}\n", error.full());
  } catch (const std::exception& error) {
    const auto* failed = dynamic_cast<const std::system_error*>(&error);  // as fmt tells of a write
    if (failed != nullptr && std::ferror(stdout) != 0) return refuse_stdout(failed->code().value());
    fmt::print(stderr, "error: {} (this is a bug of mlx-serving)\n", error.what());
  }
  return 1;
}
