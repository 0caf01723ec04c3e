#include "cli/bench_throughput.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>

#include "base/types.h"

namespace mlxs::cli {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

struct Step {
  SteadyTime end;
  int prefill_tokens;
  int decode_rows;
  double run_seconds;
};

// Keeps every step with the time at which it ended.
class StepRecorder final : public EngineObserver {
 public:
  void on_first_token(std::string_view, double) override {}
  void on_inter_token(std::string_view, double) override {}
  void on_finished(const RequestRecord&) override {}
  void on_step(const StepRecord& record) override {
    const std::lock_guard lock(mutex_);
    steps_.push_back(
        {std::chrono::steady_clock::now(), record.prefill_tokens, record.decode_rows, record.run_seconds});
  }
  // A request may end before its last step is told of: waits a while for steps that computed `tokens` of
  // prompts.
  void wait_for_prompts(int tokens) const {
    for (int attempt = 0; attempt < 2000; ++attempt) {
      {
        const std::lock_guard lock(mutex_);
        int seen = 0;
        for (const Step& step : steps_) seen += step.prefill_tokens;
        if (seen >= tokens) return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  std::vector<Step> take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(steps_, {});
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Step> steps_;
};

// A list that does not end within a run: strings, numbers, an enumeration, optional members.
constexpr std::string_view kSchema = R"({"type": "array", "minItems": 4000, "items": {
  "type": "object", "additionalProperties": false, "required": ["name", "age", "role"], "properties": {
    "name": {"type": "string", "maxLength": 24}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
    "role": {"enum": ["user", "admin", "guest"]}, "score": {"type": "number"},
    "tags": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 12}}}}})";

double seconds_between(SteadyTime from, SteadyTime to) {
  return std::chrono::duration<double>(to - from).count();
}

void drain(std::vector<std::unique_ptr<Generator>>& generators) {
  std::size_t open = generators.size();
  std::vector<bool> ended(open, false);
  while (open > 0) {
    for (std::size_t i = 0; i < generators.size(); ++i) {
      Chunk chunk;
      Generator::Poll poll = Generator::Poll::kEnd;
      while (!ended[i] && (poll = generators[i]->try_next(chunk)) == Generator::Poll::kChunk) {
        if (chunk.type == Chunk::Type::kError) throw Error(chunk.error_code, chunk.error_message);
      }
      if (!ended[i] && poll == Generator::Poll::kEnd) {
        ended[i] = true;
        --open;
      }
    }
    if (open > 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

double processor_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::uint64_t largest_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return static_cast<std::uint64_t>(usage.ru_maxrss);
#else
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
#endif
}

// A model on an engine, and the steps of what runs on it.
class Bench {
 public:
  Bench(EngineOptions options, const std::string& model, const ThroughputCase& what) : what_(what) {
    options.observer = recorder_;
    options.max_running = std::max(options.max_running, what.streams);
    // Pages that the warm run wrote are used again: a page's first write costs the system's zeroing, which a
    // server pays once.
    options.prefix_cache = false;
    engine_ = Engine::create(options);
    info_ = engine_->load_model({.model = model});
  }

  Engine& engine() { return *engine_; }
  const ModelInfo& info() const { return info_; }
  StepRecorder& recorder() { return *recorder_; }

  void run(int first_stream, int context, int tokens, bool structured) {
    std::vector<std::unique_ptr<Generator>> generators;
    for (int s = 0; s < what_.streams; ++s) {
      GenerateParams params{.model = info_.id,
                            .prompt = TokenPrompt{bench_prompt(context, first_stream + s, info_.vocabulary)},
                            .max_tokens = tokens,
                            .temperature = 0,
                            .ignore_eos = true};
      if (structured) params.structured = {StructuredOutput::Kind::kJsonSchema, std::string(kSchema)};
      generators.push_back(engine_->create_generator(params));
    }
    drain(generators);
  }

  // The steady part of what ran: steps in which every stream decodes. The first gives the start of the clock.
  std::vector<Step> decode_steps() {
    std::vector<Step> steps = recorder_->take();
    std::erase_if(steps,
                  [&](const Step& s) { return s.prefill_tokens > 0 || s.decode_rows != what_.streams; });
    if (steps.size() >= 3) return steps;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} streams never decoded together for three steps", what_.streams),
                "ask for more tokens, or fewer streams");
  }
  double rate(const std::vector<Step>& steps) const {
    return static_cast<double>(steps.size() - 1) * what_.streams /
           seconds_between(steps.front().end, steps.back().end);
  }

 private:
  const ThroughputCase& what_;
  std::shared_ptr<StepRecorder> recorder_ = std::make_shared<StepRecorder>();
  std::unique_ptr<Engine> engine_;
  ModelInfo info_;
};

}  // namespace

std::vector<std::int32_t> bench_prompt(int length, int stream, int vocabulary) {
  const int low = std::min(1000, vocabulary / 4);
  const std::int64_t range = vocabulary * 4 / 5 - low;
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < length; ++i) {
    tokens.push_back(low + static_cast<std::int32_t>((i * 7919 + stream * 104729LL) % range));
  }
  return tokens;
}

ThroughputResult run_throughput(EngineOptions options, const std::string& model, const ThroughputCase& what) {
  Bench bench(std::move(options), model, what);
  StepRecorder& recorder = bench.recorder();
  const ModelInfo& info = bench.info();
  const bool prefill = what.kind == "prefill";
  const int longest = what.context + (prefill ? 0 : what.tokens + 2);  // tokens of a sequence
  ThroughputResult result{.weight_bytes = info.weight_bytes};
  // Warm: pages touched, arena grown.
  bench.run(1000, longest, prefill ? 2 : 1, what.structured);
  recorder.take();
  const auto memory = [&] {
    const EngineSchedulerStats stats = bench.engine().scheduler_stats().front();
    const auto pages = static_cast<std::uint64_t>(stats.kv_pages_total);
    const auto written = static_cast<std::uint64_t>(what.streams) *
                         static_cast<std::uint64_t>((longest + kPageTokens) / kPageTokens);
    result.kv_bytes = pages > 0 ? info.kv_bytes / pages * std::min(written, pages) : 0;
    result.resident_bytes = largest_resident_bytes();
  };
  const SteadyTime started = std::chrono::steady_clock::now();
  bench.run(0, what.context, prefill ? 1 : what.tokens + 2, what.structured);
  if (prefill) {
    recorder.wait_for_prompts(what.context * what.streams);
    const std::vector<Step> steps = recorder.take();
    if (steps.empty()) throw Error(ErrorCode::kInternal, "no step was recorded");
    result.seconds = seconds_between(started, steps.back().end);
    result.tokens_per_second = what.context * static_cast<double>(what.streams) / result.seconds;
    memory();
    return result;
  }
  const std::vector<Step> steps = bench.decode_steps();
  result.seconds = seconds_between(steps.front().end, steps.back().end);
  result.tokens_per_second = bench.rate(steps);
  double inside = 0;
  std::vector<double> durations;
  for (std::size_t i = 1; i < steps.size(); ++i) {
    inside += steps[i].run_seconds;
    durations.push_back(seconds_between(steps[i - 1].end, steps[i].end) * 1e3);
  }
  std::ranges::nth_element(durations, durations.begin() + static_cast<std::ptrdiff_t>(durations.size() / 2));
  result.step_ms = durations[durations.size() / 2];
  result.overhead_share = 1.0 - inside / result.seconds;
  memory();
  return result;
}

std::vector<StructuredPair> run_structured_pairs(EngineOptions options, const std::string& model,
                                                 const ThroughputCase& what) {
  Bench bench(std::move(options), model, what);
  const auto run = [&](bool structured, double& rate, double& processor) {
    bench.recorder().take();
    const double before = processor_seconds();
    bench.run(0, what.context, what.tokens + 2, structured);
    processor = 1e6 * (processor_seconds() - before) / ((what.tokens + 2.0) * what.streams);
    rate = bench.rate(bench.decode_steps());
  };
  std::vector<StructuredPair> pairs;
  for (int round = 0; round <= what.pairs; ++round) {
    StructuredPair pair;
    for (const bool structured : {round % 2 == 0, round % 2 != 0}) {
      structured ? run(true, pair.bound_rate, pair.bound_processor_us)
                 : run(false, pair.free_rate, pair.free_processor_us);
    }
    if (round > 0) pairs.push_back(pair);  // the first warms
  }
  return pairs;
}

}  // namespace mlxs::cli
