// `plan MODEL`: whether it fits this machine, and how much context for how many users, without loading it.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/format.h"
#include "engine/load_plan.h"
#include "formats/catalog.h"

namespace mlxs::cli {
namespace {

struct PlanFlags {
  std::string model;
  int users = 0;
  bool json = false;
  EngineFlags engine;
};

// One, two, four … as long as it makes a difference; or what was asked for.
std::vector<int> user_counts(const LoadPlan& plan, int asked) {
  if (asked > 0) return {asked};
  std::vector<int> counts;
  for (int users = 1; users <= 64 && plan.tokens_each(users) > 0; users *= 2) counts.push_back(users);
  return counts;
}

std::string describe_kv(const LoadPlan& plan) {
  const std::string of_a_window =
      plan.pages().window_pages == 0
          ? ""
          : fmt::format(" ({} of it for the last {} tokens of a request)",
                        format_bytes(plan.kv.window_bytes / kPageTokens), plan.kv.window);
  const std::string size =
      plan.kv_fixed ? fmt::format("{} as asked: {} tokens", format_bytes(plan.kv_bytes), plan.tokens())
                    : fmt::format("{} at least", format_bytes(plan.kv_bytes));
  return fmt::format("{} a token{}, {}", format_bytes(plan.kv_bytes_per_token()), of_a_window, size);
}

int plan(const PlanFlags& flags) {
  const Catalog catalog;
  const auto file = ModelFile::open(catalog.resolve(flags.model));
  const auto backend =
      make_backend(flags.engine.backend, {.threads = flags.engine.threads, .device = flags.engine.device});
  EngineOptions options = engine_options(flags.engine);
  if (flags.users > 0) options.max_running = flags.users;
  const LoadPlan p = plan_load(*file, *backend, options, flags.engine.context);
  const KvPages kv = p.pages();
  const std::vector<int> counts = user_counts(p, flags.users);
  const bool enough =
      p.fits() && (flags.users == 0 || flags.engine.context == 0 || p.tokens_each(flags.users) >= p.context);

  if (flags.json) {
    nlohmann::json users = nlohmann::json::array();
    for (const int count : counts) users.push_back({{"users", count}, {"tokens_each", p.tokens_each(count)}});
    const nlohmann::json result{{"model", catalog.display_name(flags.model)},
                                {"fits", enough},
                                {"device", backend->device().description},
                                {"memory_bytes", p.memory_bytes},
                                {"free_bytes", p.free_bytes},
                                {"usable_bytes", p.usable_bytes},
                                {"weight_bytes", p.weight_bytes},
                                {"batch_bytes", p.batch_bytes},
                                {"token_budget", p.token_budget},
                                {"kv_bytes", p.kv_bytes},
                                {"kv_bytes_per_token", p.kv_bytes_per_token()},
                                {"needed_bytes", p.needed_bytes()},
                                {"context_length", p.context},
                                {"kv_tokens", p.tokens()},
                                {"kv_window", kv.window_pages > 0 ? p.kv.window : 0},
                                {"kv_window_tokens", kv.window_pages * kPageTokens},
                                {"users", users}};
    fmt::print("{}\n", result.dump(2));
    return enough ? 0 : 1;
  }
  fmt::print(
      "{}", format_table(
                {{"model", catalog.display_name(flags.model)},
                 {"device", backend->device().description},
                 {"memory",
                  fmt::format("{}, {} free{}", format_bytes(p.memory_bytes), format_bytes(p.free_bytes),
                              p.usable_bytes == p.free_bytes
                                  ? ""
                                  : fmt::format(", {} of these may be taken", format_bytes(p.usable_bytes)))},
                 {"weights", format_bytes(p.weight_bytes)},
                 {"a step", fmt::format("up to {} ({} tokens)", format_bytes(p.batch_bytes), p.token_budget)},
                 {"KV cache", describe_kv(p)},
                 {"needed", format_bytes(p.needed_bytes())},
                 {"fits", p.fits() ? "yes" : "no"}}));
  if (!counts.empty() && p.fits()) {
    std::vector<std::vector<std::string>> rows{{"USERS", "TOKENS EACH"}};
    for (const int count : counts) {
      const std::int64_t each = p.tokens_each(count);
      rows.push_back(
          {std::to_string(count), each == p.context ? fmt::format("{} (all)", each) : std::to_string(each)});
    }
    fmt::print("\n{}", format_table(rows));
  }
  if (!enough) {
    require_fit(p, catalog.display_name(flags.model));
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("{} users can have {} tokens each, not {}", flags.users,
                            p.tokens_each(flags.users), p.context),
                "ask for fewer users or less --context");
  }
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, Action& action) {
  auto flags = std::make_shared<PlanFlags>();
  CLI::App* command = app.add_subcommand("plan", "Say whether a model fits this machine, without loading it");
  command->add_option("MODEL", flags->model, kModelHelp)->required();
  command->add_option("--users", flags->users, "Requests that run at once (default: a table)")
      ->check(CLI::Range(1, 4096, "1..4096"));
  command->add_flag("--json", flags->json, "Print JSON");
  add_engine_flags(*command, flags->engine);
  command->remove_option(command->get_option("--force"));
  command->footer(
      "Exit status 1: it does not fit. The table is of the cache that --kv-cache-bytes gives, or\n"
      "without it of the most that it can give: by default the cache takes a fifth of the free memory, or\n"
      "one context; of a GPU all that the table says.\n"
      "Examples:\n"
      "  mlx-serving plan smollm2\n"
      "  mlx-serving plan ./model.gguf --users 8 --context 4096\n"
      "  mlx-serving plan org/repo:Q4_K_M --json");
  command->callback([flags, &action] { action = [flags] { return plan(*flags); }; });
}

}  // namespace mlxs::cli
