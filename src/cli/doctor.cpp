// `doctor`: what this machine offers, what is wrong and how to fix it. `collect-env`: the same facts for a
// bug report. `version`.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cli/commands.h"
#include "cli/format.h"
#include "cli/health_checks.h"
#include "cli/machine_facts.h"

namespace mlxs::cli {
namespace {

constexpr int kDefaultPort = 8000;

std::string_view level_name(Finding::Level level) {
  switch (level) {
    case Finding::Level::kGood:
      return "ok";
    case Finding::Level::kWarning:
      return "warning";
    case Finding::Level::kFailure:
      return "failure";
  }
  return "";
}

int doctor(int port, bool json) {
  const MachineFacts facts = gather_facts(port);
  const std::vector<Finding> findings = judge(facts);
  int warnings = 0, failures = 0;
  for (const Finding& finding : findings) {
    warnings += finding.level == Finding::Level::kWarning ? 1 : 0;
    failures += finding.level == Finding::Level::kFailure ? 1 : 0;
  }
  if (json) {
    nlohmann::json list = nlohmann::json::array();
    for (const Finding& finding : findings) {
      list.push_back({{"level", level_name(finding.level)},
                      {"subject", finding.subject},
                      {"found", finding.found},
                      {"remedy", finding.remedy}});
    }
    fmt::print("{}\n", nlohmann::json{{"version", facts.version}, {"findings", list}}.dump(2));
    return failures > 0 ? 1 : 0;
  }
  std::vector<std::vector<std::string>> rows{{"", "version", facts.version + " on " + facts.system}};
  for (const Finding& finding : findings) {
    const bool good = finding.level == Finding::Level::kGood;
    rows.push_back({good ? "" : std::string(level_name(finding.level)), finding.subject, finding.found});
    if (!finding.remedy.empty()) rows.push_back({"", "", "→ " + finding.remedy});
  }
  fmt::print("{}\n{}\n", format_table(rows),
             warnings + failures == 0 ? "Nothing stands in the way."
                                      : fmt::format("{} to fix, {} to consider.", failures, warnings));
  return failures > 0 ? 1 : 0;
}

int collect_env(bool json) {
  const MachineFacts f = gather_facts(kDefaultPort);
  nlohmann::ordered_json report{
      {"version", f.version},
      {"compiler", f.compiler},
      {"system", f.system},
      {"kernel", f.kernel},
      {"processor", f.processor},
      {"features", fmt::format("{}", fmt::join(f.features, " "))},
      {"processors", fmt::format("{}, {} usable, {} compute threads", f.processors, f.usable, f.threads)},
      {"kernels", fmt::format("{} of {}", f.isa_used, f.isa_possible)},
      {"memory",
       fmt::format("{}, {} available", format_bytes(f.memory_bytes), format_bytes(f.available_bytes))},
      {"huge_pages", f.huge_pages},
      {"open_files", fmt::format("{} of {}", f.open_files_soft, f.open_files_hard)}};
  for (const BackendFacts& backend : f.backends) {
    report["backend " + backend.name] = !backend.built           ? "not built"
                                        : backend.device.empty() ? backend.reason
                                                                 : backend.device;
  }
  report["nvidia_driver"] = f.nvidia_driver ? (f.nvidia_version.empty() ? "yes" : f.nvidia_version) : "no";
  report["configuration"] = f.configuration.file.empty() ? "no file" : f.configuration.file;
  report["models"] = fmt::format("{}", f.models);
  for (const auto& [name, value] : f.environment) report[name] = value;
  if (json) {
    fmt::print("{}\n", report.dump(2));
    return 0;
  }
  fmt::print("```\n");
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : report.items()) rows.push_back({name, value.get<std::string>()});
  fmt::print("{}```\n", format_table(rows));
  return 0;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  struct Flags {
    int port = kDefaultPort;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("doctor", "Say what this machine offers, what is wrong and how to fix it");
  command->add_option("--port", flags->port, "The port you mean to serve on")
      ->capture_default_str()
      ->check(CLI::Range(1, 65535, "1..65535"));
  command->add_flag("--json", flags->json, "Print JSON");
  command->footer(
      "Exit status 1: something must be fixed first. Warnings cost speed or room.\n"
      "Examples:\n  mlx-serving doctor\n  MLXS_CPU_ISA=avx2 mlx-serving doctor");
  command->callback([flags, &action] { action = [flags] { return doctor(flags->port, flags->json); }; });
}

void add_collect_env(CLI::App& app, Action& action) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("collect-env", "Print the facts that a bug report needs");
  command->add_flag("--json", *json, "Print JSON");
  command->footer(
      "Keys and tokens are named, never shown. The text is Markdown, ready to paste.\n"
      "Examples:\n  mlx-serving collect-env");
  command->callback([json, &action] { action = [json] { return collect_env(*json); }; });
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
