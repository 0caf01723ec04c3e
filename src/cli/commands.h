// The commands of the program: each add_* declares one on the app and, if it is the one chosen, stores what
// to run. Actions return the exit status: 0 done, 1 it failed (or throw mlxs::Error: main prints it and exits
// 1). Usage errors exit 2.
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <string>
#include <vector>

namespace mlxs::cli {

using Action = std::function<int()>;

void add_serve(CLI::App& app, Action& action);
void add_run(CLI::App& app, Action& action);
void add_chat(CLI::App& app, Action& action);
void add_pull(CLI::App& app, Action& action);
void add_ls(CLI::App& app, Action& action);
void add_show(CLI::App& app, Action& action);
void add_plan(CLI::App& app, Action& action);
void add_rm(CLI::App& app, Action& action);
void add_ps(CLI::App& app, Action& action);
void add_why(CLI::App& app, Action& action);
void add_config(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
// `bench --synthetic CONFIG …` as the command line that it stands for: `bench synthetic CONFIG …`.
std::vector<std::string> spell_out_synthetic(std::vector<std::string> arguments);
void add_sim(CLI::App& app, Action& action);
void add_doctor(CLI::App& app, Action& action);
void add_collect_env(CLI::App& app, Action& action);
void add_version(CLI::App& app, Action& action);

}  // namespace mlxs::cli
