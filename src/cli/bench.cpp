// `bench`: what this build does on this machine. `make bench` runs it beside llama.cpp and prints ratios.
#include <fmt/format.h>
#include <stdlib.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <thread>

#include "backend/limits.h"
#include "backend/registry.h"
#include "cli/bench_kernels.h"
#include "cli/bench_latency.h"
#include "cli/bench_scheduler.h"
#include "cli/bench_serve.h"
#include "cli/bench_synthetic.h"
#include "cli/bench_throughput.h"
#include "cli/bench_url.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/format.h"
#include "engine/load_plan.h"

namespace mlxs::cli {
namespace {

struct BenchFlags {
  EngineFlags engine;
  ThroughputCase what;
  KernelBench kernels;
  LatencyBench latency;
  SyntheticBench synthetic;
  std::string model = "smollm2";
  bool json = false;
};

int compute_threads(const EngineFlags& flags) {
  return flags.threads > 0 ? flags.threads
                           : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

int structured_pairs(const BenchFlags& flags) {
  nlohmann::json pairs = nlohmann::json::array();
  for (const StructuredPair& pair :
       run_structured_pairs(engine_options(flags.engine), flags.model, flags.what)) {
    pairs.push_back({{"free_tokens_per_second", pair.free_rate},
                     {"structured_tokens_per_second", pair.bound_rate},
                     {"free_processor_us_per_token", pair.free_processor_us},
                     {"structured_processor_us_per_token", pair.bound_processor_us}});
    if (flags.json) continue;
    fmt::print("{:.0f} of {:.0f} tokens/s; {:.1f} and {:.1f} us of processor time a token\n", pair.bound_rate,
               pair.free_rate, pair.bound_processor_us, pair.free_processor_us);
  }
  if (flags.json) fmt::print("{}\n", pairs.dump());
  return 0;
}

int throughput(const BenchFlags& flags) {
  fetch_if_absent(flags.model);
  if (flags.what.pairs > 0) return structured_pairs(flags);
  const ThroughputResult result = run_throughput(engine_options(flags.engine), flags.model, flags.what);
  if (flags.json) {
    fmt::print("{}\n", nlohmann::json{{"case", flags.what.kind},
                                      {"streams", flags.what.streams},
                                      {"context", flags.what.context},
                                      {"tokens_per_second", result.tokens_per_second},
                                      {"seconds", result.seconds},
                                      {"step_ms", result.step_ms},
                                      {"overhead_share", result.overhead_share},
                                      {"weight_bytes", result.weight_bytes},
                                      {"kv_bytes", result.kv_bytes},
                                      {"resident_bytes", result.resident_bytes}}
                           .dump());
    return 0;
  }
  fmt::print("{} {} stream(s), {} prompt tokens each: {:.1f} tokens/s", flags.what.kind, flags.what.streams,
             flags.what.context, result.tokens_per_second);
  if (flags.what.kind == "decode") {
    fmt::print(", {:.2f} ms a step, {:.1f} % of it outside the kernels", result.step_ms,
               100 * result.overhead_share);
  }
  fmt::print("\n");
  return 0;
}

int latency(const BenchFlags& flags) {
  fetch_if_absent(flags.model);
  const std::vector<LatencyFigure> figures =
      run_latency(engine_options(flags.engine), flags.model, flags.latency);
  if (flags.json) {
    nlohmann::json all = nlohmann::json::array();
    for (const LatencyFigure& f : figures) {
      all.push_back({{"prompt_tokens", f.prompt_tokens},
                     {"ttft_ms", {{"p50", f.ttft_p50_ms}, {"p95", f.ttft_p95_ms}}},
                     {"itl_ms", {{"p50", f.itl_p50_ms}, {"p95", f.itl_p95_ms}, {"p99", f.itl_p99_ms}}}});
    }
    fmt::print("{}\n", all.dump());
    return 0;
  }
  std::vector<std::vector<std::string>> table{
      {"PROMPT", "TTFT P50", "TTFT P95", "ITL P50", "ITL P95", "ITL P99"}};
  for (const LatencyFigure& f : figures) {
    std::vector<std::string> row{fmt::format("{} tokens", f.prompt_tokens)};
    for (const double ms : {f.ttft_p50_ms, f.ttft_p95_ms, f.itl_p50_ms, f.itl_p95_ms, f.itl_p99_ms}) {
      row.push_back(fmt::format("{:.2f} ms", ms));
    }
    table.push_back(std::move(row));
  }
  fmt::print("{}", format_table(table));
  return 0;
}

class TemporaryFolder {
 public:
  TemporaryFolder() : path_((std::filesystem::temp_directory_path() / "mlx-serving-bench-XXXXXX").string()) {
    if (mkdtemp(path_.data()) == nullptr) throw std::system_error(errno, std::generic_category(), path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The first load packs the weights into an empty cache; the second maps what the first wrote.
int load(const BenchFlags& flags) {
  fetch_if_absent(flags.model);
  EngineOptions options = engine_options(flags.engine);
  // Names it by its path, as the empty cache knows no models, and brings the file into memory.
  const std::string path = Engine::create(options)->load_model({.model = flags.model}).path;
  const TemporaryFolder cache;
  options.cache_dir = cache.path();
  const auto seconds = [&] { return Engine::create(options)->load_model({.model = path}).load_seconds; };
  const double first = seconds(), again = seconds();
  if (flags.json) {
    fmt::print("{}\n", nlohmann::json{{"first_seconds", first}, {"cached_seconds", again}}.dump());
  } else {
    fmt::print("first load {:.1f} ms, from packed weights {:.1f} ms: {:.0f} times as fast\n", 1e3 * first,
               1e3 * again, first / again);
  }
  return 0;
}

int limits(const BenchFlags& flags) {
  const MachineLimits limits = measure_limits(compute_threads(flags.engine));
  if (flags.json) {
    fmt::print("{}\n", nlohmann::json{{"threads", limits.threads},
                                      {"read_gb_per_second", limits.read_gb_per_second},
                                      {"f32_gflop_per_second", limits.f32_gflop_per_second},
                                      {"bf16_gflop_per_second", limits.bf16_gflop_per_second},
                                      {"int8_gop_per_second", limits.int8_gop_per_second}}
                           .dump());
    return 0;
  }
  std::vector<std::vector<std::string>> rows{{"LIMIT", fmt::format("{} THREADS", limits.threads)}};
  rows.push_back({"read bandwidth", fmt::format("{:.1f} GB/s", limits.read_gb_per_second)});
  rows.push_back({"f32 multiply-add", fmt::format("{:.0f} GFLOP/s", limits.f32_gflop_per_second)});
  if (limits.bf16_gflop_per_second > 0) {
    rows.push_back({"AMX bf16", fmt::format("{:.0f} GFLOP/s", limits.bf16_gflop_per_second)});
    rows.push_back({"AMX int8", fmt::format("{:.0f} GOP/s", limits.int8_gop_per_second)});
  }
  fmt::print("{}", format_table(rows));
  return 0;
}

int kernels(const BenchFlags& flags) {
  const auto backend =
      make_backend(flags.engine.backend, {.threads = flags.engine.threads, .device = flags.engine.device});
  const std::vector<KernelFigure> figures = run_kernels(*backend, flags.kernels);
  const MachineLimits limits = measure_limits(compute_threads(flags.engine));
  if (flags.json) {
    nlohmann::json all = nlohmann::json::array();
    for (const KernelFigure& f : figures) {
      all.push_back({{"name", f.name},
                     {"outputs", f.outputs},
                     {"inputs", f.inputs},
                     {"rows", f.rows},
                     {"microseconds", f.microseconds},
                     {"gb_per_second", f.gb_per_second},
                     {"gflop_per_second", f.gflop_per_second}});
    }
    fmt::print("{}\n", nlohmann::json{{"device", backend->device().description},
                                      {"format", flags.kernels.format},
                                      {"read_gb_per_second", limits.read_gb_per_second},
                                      {"kernels", all}}
                           .dump());
    return 0;
  }
  fmt::print("{}, {} weights; reads {:.1f} GB/s at most\n\n", backend->device().description,
             flags.kernels.format, limits.read_gb_per_second);
  std::vector<std::vector<std::string>> table{
      {"MATRIX", "SHAPE", "ROWS", "TIME", "GB/S", "OF LIMIT", "GFLOP/S"}};
  for (const KernelFigure& f : figures) {
    table.push_back({f.name, fmt::format("{} x {}", f.outputs, f.inputs), std::to_string(f.rows),
                     fmt::format("{:.1f} us", f.microseconds), fmt::format("{:.1f}", f.gb_per_second),
                     fmt::format("{:.0f} %", 100 * f.gb_per_second / limits.read_gb_per_second),
                     fmt::format("{:.0f}", f.gflop_per_second)});
  }
  fmt::print("{}", format_table(table));
  return 0;
}

int synthetic(const BenchFlags& flags) {
  const auto backend =
      make_backend(flags.engine.backend, {.threads = flags.engine.threads, .device = flags.engine.device});
  SyntheticBench what = flags.synthetic;
  what.kv_type = kv_type(engine_options(flags.engine));
  print_synthetic(run_synthetic(*backend, what), backend->device().description, flags.json);
  return 0;
}

}  // namespace

std::vector<std::string> spell_out_synthetic(std::vector<std::string> arguments) {
  constexpr std::string_view kFlag = "--synthetic";
  if (arguments.empty() || arguments.front() != "bench") return arguments;
  const auto flag = std::ranges::find_if(arguments, [&](std::string_view argument) {
    return argument == kFlag ||
           (argument.starts_with(kFlag) && argument.substr(kFlag.size()).starts_with('='));
  });
  if (flag == arguments.end()) return arguments;
  if (flag->size() > kFlag.size()) {
    *flag = flag->substr(kFlag.size() + 1);
  } else {
    arguments.erase(flag);
  }
  arguments.insert(arguments.begin() + 1, "synthetic");
  return arguments;
}

void add_bench(CLI::App& app, Action& action) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* bench = app.add_subcommand("bench", "Measure this build on this machine, or a running server");
  bench->require_subcommand(1);
  bench->footer(
      "A running server: quick, compare, ttft, throughput --url, all, serve. Beside llama.cpp: make bench\n\n"
      "Examples:\n  mlx-serving bench quick --url http://127.0.0.1:8000\n  mlx-serving bench throughput "
      "--streams 16\n  mlx-serving bench load\n  mlx-serving bench "
      "limits");

  add_url_benches(*bench, action);
  CLI::App* run = bench->add_subcommand(
      "throughput", "Tokens a second: of one case, through the engine; with --url, of a server");
  run->add_option("--model", flags->model, "A path, an alias or org/repo")->capture_default_str();
  run->add_option("--case", flags->what.kind, "prefill or decode")
      ->check(CLI::IsMember({"prefill", "decode"}))
      ->capture_default_str();
  run->add_option("--streams", flags->what.streams, "Requests at once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  run->add_option("--prompt-tokens", flags->what.context, "Prompt tokens of each request")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  run->add_option("--tokens", flags->what.tokens, "Generated tokens of each request")
      ->check(CLI::Range(4, 1 << 20))
      ->capture_default_str();
  run->add_flag("--structured", flags->what.structured, "Every answer obeys a JSON schema");
  run->add_option("--structured-pairs", flags->what.pairs,
                  "Decodes so often with the schema and without, in turns, and prints both")
      ->check(CLI::Range(1, 10000));
  run->add_flag("--json", flags->json, "One JSON object");
  add_engine_flags(*run, flags->engine);
  run->footer(
      "Examples:\n  mlx-serving bench throughput --case prefill --prompt-tokens 512\n"
      "  mlx-serving bench throughput --streams 16\n"
      "  mlx-serving bench throughput --url http://127.0.0.1:8000 --clients 1,4,16 --rate 2");
  const auto of_url = add_url_throughput(*run, flags->model, flags->json);
  run->callback([flags, of_url, &action] {
    if (!of_url(action)) action = [flags] { return throughput(*flags); };
  });

  CLI::App* products = bench->add_subcommand("kernels", "Matrix products alone: time, bandwidth, arithmetic");
  products->add_option("--format", flags->kernels.format, "Weight format of the layers")
      ->check(CLI::IsMember(kernel_formats()))
      ->capture_default_str();
  products->add_option("--rows", flags->kernels.rows, "Rows of a step")
      ->check(CLI::Range(1, 4096))
      ->delimiter(',')
      ->capture_default_str();
  products->add_option("--seconds", flags->kernels.seconds, "Seconds of each measurement")
      ->check(CLI::Range(0.001, 60.0))
      ->capture_default_str();
  products->add_flag("--json", flags->json, "One JSON object");
  add_engine_flags(*products, flags->engine);
  products->footer(
      "Examples:\n  mlx-serving bench kernels --rows 1,16\n"
      "  MLXS_CPU_ISA=avx2 mlx-serving bench kernels --format Q4_K");
  products->callback([flags, &action] { action = [flags] { return kernels(*flags); }; });

  CLI::App* invented = bench->add_subcommand(
      "synthetic", "A published model's speed without its files: random weights of a config.json");
  invented->add_option("config", flags->synthetic.config, "config.json of the model; bench/configs has some")
      ->required()
      ->check(CLI::ExistingFile);
  invented->add_option("--streams", flags->synthetic.streams, "Sequences that decode at once")
      ->check(CLI::Range(1, 4096))
      ->delimiter(',')
      ->capture_default_str();
  invented->add_option("--prompt-tokens", flags->synthetic.context, "Prompt tokens of each sequence")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  invented->add_option("--steps", flags->synthetic.steps, "Decode steps that are measured")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  invented->add_option("--rows", flags->synthetic.rows, "Prompt tokens of one step, at most")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  invented->add_flag("--json", flags->json, "One JSON object");
  add_engine_flags(*invented, flags->engine);
  invented->footer(
      "The same as a flag: mlx-serving bench --synthetic CONFIG …\n"
      "Examples:\n  mlx-serving bench synthetic bench/configs/qwen3-30b-a3b-4bit.json\n"
      "  mlx-serving bench synthetic config.json --backend cpu --streams 1,4 --prompt-tokens 64");
  invented->callback([flags, &action] { action = [flags] { return synthetic(*flags); }; });

  add_scheduler_bench(*bench, action);

  CLI::App* alone =
      bench->add_subcommand("latency", "One user alone: time to first token and between tokens");
  alone->add_option("--model", flags->model, "A path, an alias or org/repo")->capture_default_str();
  alone->add_option("--prompt-tokens", flags->latency.prompt_tokens, "Prompt lengths")
      ->check(CLI::Range(1, 1 << 20))
      ->delimiter(',')
      ->capture_default_str();
  alone->add_option("--tokens", flags->latency.tokens, "Generated tokens of each request")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  alone->add_option("--repeats", flags->latency.repeats, "Requests of each length")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  alone->add_flag("--json", flags->json, "A JSON list");
  add_engine_flags(*alone, flags->engine);
  alone->footer("Examples:\n  mlx-serving bench latency --prompt-tokens 16,512");
  alone->callback([flags, &action] { action = [flags] { return latency(*flags); }; });

  add_serve_bench(*bench, action);

  CLI::App* loading =
      bench->add_subcommand("load", "Seconds to load a model: the first time, and from packed weights");
  loading->add_option("--model", flags->model, "A path, an alias or org/repo")->capture_default_str();
  loading->add_flag("--json", flags->json, "One JSON object");
  add_engine_flags(*loading, flags->engine);
  loading->footer("Examples:\n  mlx-serving bench load");
  loading->callback([flags, &action] { action = [flags] { return load(*flags); }; });

  CLI::App* machine =
      bench->add_subcommand("limits", "What the machine can do at most: bandwidth and arithmetic");
  machine->add_option("--threads", flags->engine.threads, "Threads")->check(CLI::Range(1, 256));
  machine->add_flag("--json", flags->json, "One JSON object");
  machine->footer("Examples:\n  mlx-serving bench limits --json");
  machine->callback([flags, &action] { action = [flags] { return limits(*flags); }; });
}

}  // namespace mlxs::cli
