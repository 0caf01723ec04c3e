#include "cli/bench_serve.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/percentile.h"
#include "cli/format.h"
#include "cli/load_client.h"

namespace mlxs::cli {
namespace {

nlohmann::json percentiles_json(const std::vector<double>& values) {
  if (values.empty()) return nullptr;
  nlohmann::json result;
  for (const int p : {50, 90, 95, 99}) result[fmt::format("p{}", p)] = percentile(values, p);
  return result;
}

int serve_load(const ServeLoad& load, bool json) {
  const ServeFigures figures = run_serve_load(load);
  if (json) {
    fmt::print("{}\n", nlohmann::json{{"requests", figures.requests},
                                      {"failed", figures.failed},
                                      {"failures", figures.failures},
                                      {"seconds", figures.seconds},
                                      {"prompt_tokens", figures.prompt_tokens},
                                      {"cached_tokens", figures.cached_tokens},
                                      {"generated_tokens", figures.generated_tokens},
                                      {"without_text", figures.without_text},
                                      {"tokens_per_second", figures.tokens_per_second()},
                                      {"ttft_ms", percentiles_json(figures.ttft_ms)},
                                      {"itl_ms", percentiles_json(figures.itl_ms)},
                                      {"e2e_ms", percentiles_json(figures.e2e_ms)}}
                           .dump());
    return figures.failed == 0 ? 0 : 1;
  }
  fmt::print(
      "{} requests in {:.1f} s, {} failed: {:.0f} tokens/s ({} prompt tokens, {} of them cached; {} "
      "generated)\n",
      figures.requests, figures.seconds, figures.failed, figures.tokens_per_second(), figures.prompt_tokens,
      figures.cached_tokens, figures.generated_tokens);
  for (const auto& [reason, count] : figures.failures) fmt::print("  {} x {}\n", count, reason);
  if (figures.without_text > 0) {
    fmt::print(
        "  {} answers had no text (unused or special tokens alone?): first tokens and gaps are not theirs\n",
        figures.without_text);
  }
  std::vector<std::vector<std::string>> table{{"MILLISECONDS", "P50", "P90", "P95", "P99"}};
  const auto add = [&](const char* name, const std::vector<double>& values) {
    std::vector<std::string> row{name};
    for (const int p : {50, 90, 95, 99})
      row.push_back(values.empty() ? "-" : fmt::format("{:.1f}", percentile(values, p)));
    table.push_back(std::move(row));
  };
  add("time to first token", figures.ttft_ms);
  add("between tokens", figures.itl_ms);
  add("whole request", figures.e2e_ms);
  fmt::print("{}", format_table(table));
  return figures.failed == 0 ? 0 : 1;
}

}  // namespace

void add_serve_bench(CLI::App& bench, Action& action) {
  struct Flags {
    ServeLoad load;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  ServeLoad& load = flags->load;
  CLI::App* serving = bench.add_subcommand("serve", "Load on a running server that speaks the OpenAI API");
  serving->add_option("--url", load.url, "The server")->capture_default_str();
  serving->add_option("--model", load.model, "A model of the server; default: the first that it lists");
  serving->add_option("--api-key", load.key, "Sent as a bearer token")->envname("OPENAI_API_KEY");
  serving->add_option("--clients", load.clients, "Requests at once")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  serving->add_option("--requests", load.requests, "Requests in total")
      ->check(CLI::Range(1, 10000000))
      ->capture_default_str();
  serving
      ->add_option("--rate", load.rate,
                   "Requests a second, arriving at random whatever still runs, instead of --clients")
      ->check(CLI::PositiveNumber);
  serving->add_option("--prompt-words", load.prompt_words, "Words of a prompt, about a token each")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  serving->add_option("--prefix-words", load.prefix_words, "Words of a system prompt that all share")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  serving->add_option("--long-share", load.long_share, "Share of requests that are --long-words long")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  serving->add_option("--long-words", load.long_words, "Words of a long prompt")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  serving->add_option("--max-tokens", load.max_tokens, "Generated tokens of each request, at most")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  serving->add_option("--seed", load.seed, "Of the prompts and arrivals")->capture_default_str();
  serving->add_flag("--json", flags->json, "One JSON object");
  serving->footer(
      "Examples:\n  mlx-serving bench serve --clients 64 --requests 256\n"
      "  mlx-serving bench serve --url http://127.0.0.1:8080 --rate 4 --long-share 0.1");
  serving->callback([flags, &action] { action = [flags] { return serve_load(flags->load, flags->json); }; });
}

}  // namespace mlxs::cli
