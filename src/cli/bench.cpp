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
#include "cli/bench_throughput.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/format.h"

namespace mlxs::cli {
namespace {

struct BenchFlags {
  EngineFlags engine;
  ThroughputCase what;
  KernelBench kernels;
  std::string model = "smollm2";
  bool json = false;
};

int compute_threads(const EngineFlags& flags) {
  return flags.threads > 0 ? flags.threads
                           : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

int throughput(const BenchFlags& flags) {
  fetch_if_absent(flags.model);
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
  const auto backend = make_backend(flags.engine.backend, {.threads = flags.engine.threads});
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

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* bench = app.add_subcommand("bench", "Measure this build on this machine");
  bench->require_subcommand(1);
  bench->footer(
      "Beside llama.cpp, as ratios: make bench\n\n"
      "Examples:\n  mlx-serving bench throughput --streams 16\n  mlx-serving bench load\n  mlx-serving bench "
      "limits");

  CLI::App* run = bench->add_subcommand("throughput", "Tokens a second of one case, through the engine");
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
  run->add_flag("--json", flags->json, "One JSON object");
  add_engine_flags(*run, flags->engine);
  run->footer(
      "Examples:\n  mlx-serving bench throughput --case prefill --prompt-tokens 512\n"
      "  mlx-serving bench throughput --streams 16");
  run->callback([flags, &action] { action = [flags] { return throughput(*flags); }; });

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
