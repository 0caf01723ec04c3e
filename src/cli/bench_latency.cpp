#include "cli/bench_latency.h"

#include <chrono>

#include "base/percentile.h"
#include "cli/bench_throughput.h"

namespace mlxs::cli {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;
using Milliseconds = std::chrono::duration<double, std::milli>;

struct Samples {
  std::vector<double> ttft, itl;
};

void run_one(Engine& engine, const GenerateParams& params, Samples& out) {
  SteadyTime last = std::chrono::steady_clock::now();
  const auto generator = engine.create_generator(params);
  bool first = true;
  while (const auto chunk = generator->next()) {
    if (chunk->type == Chunk::Type::kError) throw Error(chunk->error_code, chunk->error_message);
    if (chunk->token_id < 0) continue;
    const SteadyTime now = std::chrono::steady_clock::now();
    (first ? out.ttft : out.itl).push_back(Milliseconds(now - last).count());
    first = false;
    last = now;
  }
}

}  // namespace

std::vector<LatencyFigure> run_latency(const EngineOptions& options, const std::string& model,
                                       const LatencyBench& what) {
  const auto engine = Engine::create(options);
  const ModelInfo info = engine->load_model({.model = model});
  engine->warmup_model(info.id);
  std::vector<LatencyFigure> figures;
  int stream = 0;
  for (const int length : what.prompt_tokens) {
    Samples samples;
    for (int i = 0; i < what.repeats; ++i) {
      run_one(*engine,
              {.model = info.id,
               .prompt = TokenPrompt{bench_prompt(length, stream++, info.vocabulary)},
               .max_tokens = what.tokens,
               .temperature = 0,
               .ignore_eos = true},
              samples);
    }
    figures.push_back({.prompt_tokens = length,
                       .ttft_p50_ms = percentile(samples.ttft, 50),
                       .ttft_p95_ms = percentile(samples.ttft, 95),
                       .itl_p50_ms = percentile(samples.itl, 50),
                       .itl_p95_ms = percentile(samples.itl, 95),
                       .itl_p99_ms = percentile(samples.itl, 99)});
  }
  return figures;
}

}  // namespace mlxs::cli
