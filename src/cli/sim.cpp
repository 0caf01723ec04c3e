// `sim`: scheduling policies side by side on the same simulated traffic, hours of it in seconds.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/sim_report.h"
#include "mlxs/error.h"
#include "sim/scenarios.h"

namespace mlxs::cli {
namespace {

struct SimFlags {
  std::string scenario = "long";
  ScenarioSize size;
  std::uint64_t seed = 1;
  std::vector<std::string> policies;
  SchedulerConfig scheduler{.max_running = 256, .token_budget = 512, .max_context = 36864};
  std::int32_t kv_tokens = 800'000;  // what an H200 holds beside an 8B model in bf16
  double slo_ttft_ms = 1000, slo_ttft_us_per_token = 100, slo_tpot_ms = 50;
  bool json = false;
};

std::vector<SimPolicy> chosen_policies(const std::vector<std::string>& names) {
  std::vector<SimPolicy> chosen = sim_policies();
  if (!names.empty())
    std::erase_if(chosen,
                  [&](const SimPolicy& p) { return std::ranges::find(names, p.name) == names.end(); });
  return chosen;
}

SimSetup setup_of(const SimFlags& flags) {
  SimSetup setup;
  setup.scheduler = flags.scheduler;
  setup.kv.num_pages = KvPool::pages_for(flags.kv_tokens);
  setup.cost = h200_cost();
  setup.slo = {.ttft_s = flags.slo_ttft_ms / 1e3,
               .ttft_per_token_s = flags.slo_ttft_us_per_token / 1e6,
               .tpot_s = flags.slo_tpot_ms / 1e3};
  return setup;
}

int simulate_all(SimFlags flags) {
  const SimSetup setup = setup_of(flags);
  flags.size.max_context = flags.scheduler.max_context;
  const std::vector<TrafficStream> streams = scenario(flags.scenario, flags.size);
  std::vector<SimColumn> columns;
  std::vector<std::future<SimReport>> running;
  for (const SimPolicy& policy : chosen_policies(flags.policies)) {
    columns.push_back({.policy = policy});
    running.push_back(std::async(std::launch::async, [&streams, &flags, own = with_policy(setup, policy)] {
      const auto traffic = generated_traffic(streams, flags.seed);
      return simulate(own, *traffic);
    }));
  }
  for (std::size_t i = 0; i < running.size(); ++i) columns[i].report = running[i].get();
  if (flags.json) {
    nlohmann::json policies = nlohmann::json::array();
    for (const SimColumn& column : columns) policies.push_back(sim_json(column));
    fmt::print("{}\n", nlohmann::json{{"scenario", flags.scenario},
                                      {"requests_per_s", flags.size.requests_per_s},
                                      {"seconds", flags.size.seconds},
                                      {"seed", flags.seed},
                                      {"cost", setup.cost.source},
                                      {"policies", policies}}
                           .dump());
  } else {
    fmt::print("{}\ncost of a step: {}\n", sim_table(columns), setup.cost.source);
  }
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
  command->add_option("--rate", flags->size.requests_per_s, "Requests a second")
      ->check(CLI::Range(1e-3, 1e5))
      ->capture_default_str();
  command->add_option("--seconds", flags->size.seconds, "How long requests arrive, in simulated seconds")
      ->check(CLI::Range(1.0, 1e8))
      ->capture_default_str();
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
  command->add_option("--max-context", flags->scheduler.max_context, "Prompt and answer of one request")
      ->check(CLI::Range(16, 1 << 20))
      ->capture_default_str();
  command->add_option("--kv-tokens", flags->kv_tokens, "Tokens that the KV cache holds")
      ->check(CLI::Range(16, 1 << 28))
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
  command->add_flag("--json", flags->json, "One JSON object");
  command->footer(about +
                  "\n\nExamples:\n  mlx-serving sim --scenario long --rate 12\n"
                  "  mlx-serving sim --scenario flood --policies fcfs,ours --json");
  command->callback([flags, &action] { action = [flags] { return simulate_all(*flags); }; });
}

}  // namespace mlxs::cli
