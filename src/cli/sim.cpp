// `sim`: scheduling policies side by side on the same simulated traffic, hours of it in seconds.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/sim_report.h"
#include "config/config.h"
#include "engine/load_plan.h"
#include "mlxs/error.h"
#include "sim/compare.h"
#include "sim/scenarios.h"
#include "sim/trace_traffic.h"

namespace mlxs::cli {
namespace {

struct SimFlags {
  std::string scenario = "long";
  ScenarioSize size;
  std::vector<double> rates = {10};
  std::string trace;
  double speed = 1;
  std::string svg;
  std::uint64_t seed = 1;
  std::vector<std::string> policies;
  SchedulerConfig scheduler{.max_running = 256, .token_budget = 512, .max_context = 36864};
  double large_step_ms = 0;
  std::int32_t swap_tokens = 0;
  std::int32_t kv_tokens = 800'000;  // what an H200 holds beside an 8B model in bf16
  double slo_ttft_ms = 1000, slo_ttft_us_per_token = 100, slo_tpot_ms = 50;
  std::string preset;  // of the admission window
  bool json = false;
};

std::vector<SimPolicy> chosen_policies(const std::vector<std::string>& names) {
  std::vector<SimPolicy> chosen = sim_policies();
  if (!names.empty())
    std::erase_if(chosen,
                  [&](const SimPolicy& p) { return std::ranges::find(names, p.name) == names.end(); });
  return chosen;
}

// The window as serve has it with this preset, and nothing else said.
AdmissionWindowOptions window_preset(const std::string& name) {
  config::Sources sources;
  sources.flags.emplace("gpu_scheduler.preset", config::Raw::of(name));
  return config::load(sources).settings.engine.admission_window;
}

SimSetup setup_of(const SimFlags& flags) {
  SimSetup setup;
  setup.scheduler = flags.scheduler;
  if (flags.large_step_ms > 0) {
    setup.scheduler.sure_budget = std::min(kSureBudget, flags.scheduler.token_budget);
    setup.scheduler.large_step = from_ms(flags.large_step_ms);
  }
  setup.kv.num_pages = KvPool::pages_for(flags.kv_tokens);
  setup.scheduler.swap_pages = flags.swap_tokens / kPageTokens;
  if (!flags.preset.empty()) setup.scheduler.window = window_preset(flags.preset);
  setup.cost = h200_cost();
  setup.slo = {.ttft_s = flags.slo_ttft_ms / 1e3,
               .ttft_per_token_s = flags.slo_ttft_us_per_token / 1e6,
               .tpot_s = flags.slo_tpot_ms / 1e3};
  return setup;
}

std::vector<SimJob> jobs_of(const SimFlags& flags, const std::vector<SimPolicy>& policies) {
  const SimSetup setup = setup_of(flags);
  std::vector<SimJob> jobs;
  for (const double rate : flags.trace.empty() ? flags.rates : std::vector<double>{0}) {
    ScenarioSize size = flags.size;
    size.requests_per_s = rate;
    size.max_context = flags.scheduler.max_context;
    const auto traffic = [flags, size]() -> std::unique_ptr<Traffic> {
      if (!flags.trace.empty()) return trace_file_traffic(flags.trace, flags.speed);
      return generated_traffic(scenario(flags.scenario, size), flags.seed);
    };
    for (const SimPolicy& policy : policies)
      jobs.push_back({policy, rate, with_policy(setup, policy), traffic});
  }
  return jobs;
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) throw Error(ErrorCode::kIo, fmt::format("cannot write '{}'", path), "does its folder exist?");
}

int simulate_all(const SimFlags& flags) {
  const std::vector<SimPolicy> policies = chosen_policies(flags.policies);
  const std::vector<SimJob> jobs = jobs_of(flags, policies);
  const std::vector<SimRun> runs = run_jobs(jobs);
  const SimSetup& setup = jobs.front().setup;
  const std::string what = flags.trace.empty() ? flags.scenario : flags.trace;
  if (!flags.svg.empty()) {
    const std::string title =
        runs.size() > policies.size() ? what : fmt::format("{}, {:g} requests/s", what, flags.rates.front());
    write_file(flags.svg, sim_figure(flags.trace.empty() ? title : what, runs, policies.size(), setup.slo));
  }
  if (flags.json) {
    nlohmann::json all = nlohmann::json::array();
    for (const SimRun& run : runs) all.push_back(sim_json(run));
    fmt::print("{}\n", nlohmann::json{{"traffic", what},
                                      {"seconds", flags.size.seconds},
                                      {"seed", flags.seed},
                                      {"cost", setup.cost.source},
                                      {"runs", all}}
                           .dump());
    return 0;
  }
  fmt::print("{}\ncost of a step: {}\n",
             runs.size() > policies.size() ? sim_rate_table(runs, policies.size()) : sim_table(runs),
             setup.cost.source);
  return 0;
}

}  // namespace

void add_sim(CLI::App& app, Action& action) {
  auto flags = std::make_shared<SimFlags>();
  CLI::App* command =
      app.add_subcommand("sim", "Compare scheduling policies on simulated traffic, without a model");
  std::vector<std::string> scenarios, policies;
  std::string about = "Traffic:";
  for (const ScenarioName& name : scenario_names()) {
    scenarios.push_back(name.name);
    about += fmt::format("\n  {:<8} {}", name.name, name.what);
  }
  for (const SimPolicy& policy : sim_policies()) policies.push_back(policy.name);
  const CLI::Range positive(1, 1 << 30);
  command->add_option("--scenario", flags->scenario, "The traffic, see below")
      ->check(CLI::IsMember(scenarios))
      ->capture_default_str();
  CLI::Option* rate =
      command->add_option("--rate", flags->rates, "Requests a second; several to compare loads")
          ->check(CLI::Range(1e-3, 1e5))
          ->delimiter(',')
          ->capture_default_str();
  command->add_option("--seconds", flags->size.seconds, "How long requests arrive, in simulated seconds")
      ->check(CLI::Range(1.0, 1e8))
      ->capture_default_str();
  command->add_option("--trace", flags->trace, "JSON lines in place of a scenario: see docs/scheduling.md")
      ->check(CLI::ExistingFile)
      ->excludes(rate);
  command->add_option("--speed", flags->speed, "Plays a trace this much faster")
      ->check(CLI::Range(1e-3, 1e3))
      ->needs("--trace")
      ->capture_default_str();
  command->add_option("--svg", flags->svg, "Writes a figure there: latencies, or goodput by rate");
  command->add_option("--seed", flags->seed, "Same seed, same requests")->capture_default_str();
  command->add_option("--policies", flags->policies, "Which ones; all by default")
      ->check(CLI::IsMember(policies))
      ->delimiter(',');
  command->add_option("--max-running", flags->scheduler.max_running, "Sequences that run at once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--max-queue-depth", flags->scheduler.max_queue_depth, "Waiting requests")
      ->check(positive)
      ->capture_default_str();
  command->add_option("--token-budget", flags->scheduler.token_budget, "Tokens of one step")
      ->check(CLI::Range(16, 65536))
      ->capture_default_str();
  command
      ->add_option(
          "--large-step-ms", flags->large_step_ms,
          "Beside answers, steps of more than 512 tokens are kept below this, as serve does; 0: no bound")
      ->check(CLI::Range(0.0, 6e4))
      ->capture_default_str();
  command->add_option("--max-context", flags->scheduler.max_context, "Prompt and answer of one request")
      ->check(CLI::Range(16, 1 << 20))
      ->capture_default_str();
  command->add_option("--kv-tokens", flags->kv_tokens, "Tokens that the KV cache holds")
      ->check(CLI::Range(16, 1 << 28))
      ->capture_default_str();
  command->add_option("--swap-tokens", flags->swap_tokens, "Tokens of preempted requests that the host keeps")
      ->check(CLI::Range(0, 1 << 28))
      ->capture_default_str();
  command->add_option("--slo-ttft-ms", flags->slo_ttft_ms, "Target of the first token ...")
      ->check(CLI::Range(0.1, 1e7))
      ->capture_default_str();
  command
      ->add_option("--slo-ttft-us-per-token", flags->slo_ttft_us_per_token,
                   "... and more for each prompt token")
      ->check(CLI::Range(0.0, 1e7))
      ->capture_default_str();
  command->add_option("--slo-tpot-ms", flags->slo_tpot_ms, "Target of the time a token after the first")
      ->check(CLI::Range(0.1, 1e7))
      ->capture_default_str();
  command->add_option("--scheduler-preset", flags->preset, "Hold requests back for others to join, see serve")
      ->check(CLI::IsMember({"latency_sensitive", "balanced", "throughput_optimized"}));
  command->add_flag("--json", flags->json, "One JSON object");
  command->footer(about +
                  "\n\nExamples:\n  mlx-serving sim --scenario long --rate 12\n"
                  "  mlx-serving sim --rate 2,4,8,16 --svg goodput.svg\n"
                  "  mlx-serving sim --scenario flood --policies fcfs,ours --json");
  command->callback([flags, &action] { action = [flags] { return simulate_all(*flags); }; });
}

}  // namespace mlxs::cli
