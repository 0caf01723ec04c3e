// `bench quick|compare|ttft|throughput --url|all|report`: running servers as their users meet them.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/bench_url.h"
#include "cli/url_bench.h"
#include "cli/url_report.h"
#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

namespace fs = std::filesystem;

struct UrlFlags {
  UrlBench bench;
  BenchSide side, other;
  std::string compare, compare_model;
  std::string output;
  bool json = false, verbose = false;
};

void write_file(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) throw Error(ErrorCode::kIo, fmt::format("cannot write '{}'", path.string()), "see --output");
}

// A folder gets all three; a name ends as what it holds.
void write_output(const nlohmann::json& result, const std::string& output) {
  const fs::path path(output);
  const std::string kind = path.extension().string();
  if (kind == ".json") return write_file(path, result.dump(1) + "\n");
  if (kind == ".md") return write_file(path, result_markdown(result, ""));
  if (kind == ".svg") return write_file(path, result_svg(result));
  std::error_code failed;
  fs::create_directories(path, failed);
  if (failed)
    throw Error(ErrorCode::kIo, fmt::format("cannot make the folder '{}': {}", output, failed.message()),
                "see --output");
  write_file(path / "result.json", result.dump(1) + "\n");
  write_file(path / "report.svg", result_svg(result));
  write_file(path / "report.md", result_markdown(result, "report.svg"));
}

int show(const nlohmann::json& result, bool json, const std::string& output) {
  if (!output.empty()) write_output(result, output);
  if (json) {
    fmt::print("{}\n", result.dump());
  } else {
    fmt::print("{}", result_text(result));
  }
  for (const nlohmann::json& run : result.at("runs")) {
    if (run.at("failed").get<int>() > 0) return 1;
  }
  return 0;
}

int run(const UrlFlags& flags, const std::string& name) {
  UrlBench bench = flags.bench;
  bench.sides = {flags.side};
  if (!flags.compare.empty() || !flags.compare_model.empty()) {
    BenchSide other = flags.side;  // another model of the same server, or another server
    if (!flags.compare.empty()) other.url = flags.compare, other.model = "";
    if (!flags.compare_model.empty()) other.model = flags.compare_model;
    if (!flags.other.key.empty()) other.key = flags.other.key;
    bench.sides.push_back(other);
  }
  bench.open_loop = !bench.rates.empty();
  bench.verbose = flags.verbose;
  if (flags.verbose) bench.tell = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  return show(run_url_bench(bench, name), flags.json, flags.output);
}

int report(const std::vector<std::string>& files, bool json, const std::string& output) {
  nlohmann::json both;
  for (const std::string& file : files) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream)
      throw Error(ErrorCode::kIo, fmt::format("{} cannot be read", file), "name a result.json of `bench`");
    const nlohmann::json one =
        nlohmann::json::parse(std::istreambuf_iterator<char>(stream), {}, nullptr, false);
    if (one.is_discarded()) {
      throw Error(ErrorCode::kInvalidArgument, fmt::format("{} is not JSON", file),
                  "name a result.json of `bench`");
    }
    check_result(one, file);
    if (files.size() == 2 && one.at("sides").size() != 1) {
      throw Error(ErrorCode::kInvalidArgument, fmt::format("{} has two sides already", file),
                  "name it alone");
    }
    both = both.is_null() ? one : side_by_side(both, one);
  }
  if (!output.empty()) write_output(both, output);
  if (json) {
    fmt::print("{}\n", both.dump());
  } else if (output.empty()) {
    fmt::print("{}", result_markdown(both, ""));
  }
  return 0;
}

// What all of them take.
void add_common(CLI::App& command, UrlFlags& flags, const char* group) {
  command.add_option("--compare,-c", flags.compare, "A second server, side by side in turns")
      ->type_name("URL")
      ->group(group);
  command
      .add_option("--compare-model", flags.compare_model,
                  "The second side's model; without --compare of the same server")
      ->group(group);
  command.add_option("--compare-api-key", flags.other.key, "The second side's key, if another")->group(group);
  command.add_option("--api-key", flags.side.key, "Sent as a bearer token")
      ->envname("OPENAI_API_KEY")
      ->group(group);
  command.add_option("--questions,-q", flags.bench.questions, "Questions of a run")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--question-file", flags.bench.question_file,
                  "A question a line, or JSON lines; default: built-in ones")
      ->group(group);
  command.add_option("--max-tokens", flags.bench.max_tokens, "Generated tokens of each answer, at most")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->group(group);
  command.add_option("--temp,--temperature", flags.bench.temperature, "Temperature")
      ->check(CLI::Range(0.0, 2.0))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--cycles", flags.bench.cycles, "How often everything is measured; two sides take turns")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str()
      ->group(group);
  command.add_option("--timeout", flags.bench.timeout_s, "Seconds that a request may take")
      ->check(CLI::Range(0.001, 86400.0))
      ->capture_default_str()
      ->group(group);
  command.add_option("--bench-seed", flags.bench.seed, "Of prompts and arrivals")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--output,-o", flags.output,
                  "A folder for result.json, report.md and report.svg, or one file that ends as one of these")
      ->group(group);
  command.add_flag("--verbose,-v", flags.verbose, "A line a request on stderr")->group(group);
}

void add_clients(CLI::App& command, UrlFlags& flags, const char* group) {
  command.add_option("--clients", flags.bench.clients, "Requests at once")
      ->check(CLI::Range(1, 10000))
      ->delimiter(',')
      ->capture_default_str()
      ->group(group);
}

void add_rates(CLI::App& command, UrlFlags& flags, const char* group) {
  command.add_option("--rate", flags.bench.rates, "Open loop too: requests a second, arriving at random")
      ->check(CLI::PositiveNumber)
      ->delimiter(',')
      ->group(group);
}

void add_words(CLI::App& command, UrlFlags& flags) {
  command.add_option("--prompt-words", flags.bench.prompt_words, "Prompt lengths")
      ->check(CLI::Range(1, 1 << 20))
      ->delimiter(',')
      ->capture_default_str();
}

CLI::App* add_command(CLI::App& bench, const std::string& name, const std::string& help, UrlFlags& flags) {
  CLI::App* command = bench.add_subcommand(name, help);
  command->add_option("--url", flags.side.url, "A server that speaks the OpenAI API")->capture_default_str();
  command->add_option("--model,-m", flags.side.model, "A model of it; default: the first that it lists");
  add_common(*command, flags, "Options");
  command->add_flag("--json", flags.json, "The result as JSON on stdout");
  return command;
}

void add_report(CLI::App& bench, Action& action) {
  struct ReportFlags {
    std::vector<std::string> files;
    std::string output;
    bool json = false;
  };
  auto flags = std::make_shared<ReportFlags>();
  CLI::App* command =
      bench.add_subcommand("report", "Tables and plots of a stored result, or of two side by side");
  command
      ->add_option("RESULT", flags->files,
                   "result.json of quick, compare, ttft, throughput or all; one or two")
      ->required()
      ->expected(1, 2);
  command->add_option("--output,-o", flags->output,
                      "A folder, or one file that ends in .md, .svg or .json (default: Markdown on stdout)");
  command->add_flag("--json", flags->json, "The result as JSON on stdout");
  command->footer("Examples:\n  mlx-serving bench report monday/result.json friday/result.json -o report");
  command->callback(
      [flags, &action] { action = [flags] { return report(flags->files, flags->json, flags->output); }; });
}

}  // namespace

void add_url_benches(CLI::App& bench, Action& action) {
  auto quick = std::make_shared<UrlFlags>();
  quick->bench.ask = true;
  quick->bench.clients = {1};
  CLI::App* command =
      add_command(bench, "quick", "Ten questions to a running server, one after another", *quick);
  add_clients(*command, *quick, "Options");
  command->footer(
      "Examples:\n  mlx-serving bench quick\n  mlx-serving bench quick --url http://127.0.0.1:8080 -q 50 -o "
      "out");
  command->callback([quick, &action] { action = [quick] { return run(*quick, "quick"); }; });

  auto compare = std::make_shared<UrlFlags>();
  compare->bench.ask = true;
  compare->bench.clients = {1};
  compare->bench.questions = 100;
  compare->bench.cycles = 3;
  command =
      add_command(bench, "compare", "Two servers, or two models of one, side by side, as ratios", *compare);
  add_clients(*command, *compare, "Options");
  command->footer(
      "Examples:\n  mlx-serving bench compare --url http://127.0.0.1:8000 --compare http://127.0.0.1:8080\n"
      "  mlx-serving bench compare --model qwen3-8b --compare-model qwen3-4b -q 30 -o out");
  command->callback([compare, &action] {
    if (compare->compare.empty() && compare->compare_model.empty()) {
      throw CLI::RequiredError("--compare or --compare-model");
    }
    action = [compare] { return run(*compare, "compare"); };
  });

  auto ttft = std::make_shared<UrlFlags>();
  ttft->bench.first_token = true;
  command = add_command(bench, "ttft", "Time to first token by the length of the prompt, alone on the server",
                        *ttft);
  add_words(*command, *ttft);
  command->footer("Examples:\n  mlx-serving bench ttft --prompt-words 100,1000,4000 -o ttft.svg");
  command->callback([ttft, &action] { action = [ttft] { return run(*ttft, "ttft"); }; });

  auto all = std::make_shared<UrlFlags>();
  all->bench.ask = all->bench.first_token = all->bench.closed_loop = true;
  command = add_command(bench, "all", "quick, ttft and throughput, and --rate too, in one report", *all);
  add_words(*command, *all);
  add_clients(*command, *all, "Options");
  add_rates(*command, *all, "Options");
  command->footer("Examples:\n  mlx-serving bench all --clients 1,4,16 --rate 2,8 --cycles 3 -o out");
  command->callback([all, &action] { action = [all] { return run(*all, "all"); }; });

  add_report(bench, action);
}

std::function<bool(Action&)> add_url_throughput(CLI::App& command, const std::string& model,
                                                const bool& json) {
  auto flags = std::make_shared<UrlFlags>();
  flags->bench.closed_loop = true;
  flags->side.url.clear();
  constexpr const char* kGroup = "With --url";
  command
      .add_option(
          "--url", flags->side.url,
          "A running server that speaks the OpenAI API, instead of the engine itself; --model is one of its")
      ->group(kGroup);
  add_common(command, *flags, kGroup);
  add_clients(command, *flags, kGroup);
  add_rates(command, *flags, kGroup);
  const CLI::Option* named = command.get_option("--model");
  return [flags, named, &model, &json](Action& action) {
    if (flags->side.url.empty()) return false;
    action = [flags, named, &model, &json] {
      flags->json = json;
      if (*named) flags->side.model = model;
      return run(*flags, "throughput");
    };
    return true;
  };
}

}  // namespace mlxs::cli
