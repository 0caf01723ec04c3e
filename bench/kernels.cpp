// Google Benchmark of the linear op on SmolLM2-135M's shapes: every row count, on the path MLXS_CPU_ISA
// allows. GB/s counts packed weights once a call, FLOP/s two a weight and row. Weights rotate through 256 MiB
// so that they come from memory, as in a model. MLXS_BENCH_THREADS sets the pool (default: as the server
// would).
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "backend/cpu/linear.h"
#include "backend/cpu/machine.h"

namespace {

using namespace mlxs;
using namespace mlxs::cpu;

struct Shape {
  const char* name;
  std::int64_t outputs, inputs;
  DType type;
  bool norm, gated, residual;
};

constexpr Shape kShapes[] = {
    {"qkv", 960, 576, DType::kQ4_1, true, false, false},
    {"attention_out", 576, 576, DType::kQ4_1, false, false, true},
    {"gate_up", 3072, 576, DType::kQ4_1, true, true, false},
    {"down", 576, 1536, DType::kQ4_1, false, false, true},
    {"head", 49152, 576, DType::kQ8_0, true, false, false},
};
constexpr int kRows[] = {1, 2, 4, 8, 16, 32, 64, 512};

ThreadPool& pool() {
  static ThreadPool instance([] {
    const char* threads = std::getenv("MLXS_BENCH_THREADS");
    return threads != nullptr ? std::atoi(threads) : default_threads();
  }());
  return instance;
}

void run(benchmark::State& state, const Shape& shape, int rows) {
  std::mt19937 random(1);
  std::vector<std::byte> raw(row_bytes(shape.type, shape.inputs) * static_cast<std::size_t>(shape.outputs));
  for (std::byte& byte : raw) byte = static_cast<std::byte>(random() & 0x3b);  // finite f16 scales
  const RawWeight part{"weight", shape.type, shape.outputs, shape.inputs, raw};
  std::vector<std::unique_ptr<CpuWeight>> weights;
  for (std::size_t bytes = 0; bytes < (std::size_t{256} << 20); bytes += weights.back()->packed_bytes()) {
    weights.push_back(std::make_unique<CpuWeight>(pool(), std::span(&part, 1), WeightUse::kMatrix, nullptr));
  }
  const LinearPath path = linear_path(choose_isa());
  StepArena arena;
  const auto columns = static_cast<std::size_t>(shape.inputs);
  const auto outputs = static_cast<std::size_t>(shape.gated ? shape.outputs / 2 : shape.outputs);
  std::vector<float> x(columns * static_cast<std::size_t>(rows)), y(outputs * static_cast<std::size_t>(rows)),
      gain(columns, 1.0f);
  std::normal_distribution<float> normal;
  for (float& value : x) value = normal(random);
  LinearInput in{.x = x.data(), .stride = columns, .rows = rows};
  if (shape.norm) in.norm = {.kind = RowNorm::Kind::kRms, .gain = gain.data(), .epsilon = 1e-5f};
  const LinearOutput out{.y = y.data(),
                         .stride = outputs,
                         .residual = shape.residual ? y.data() : nullptr,
                         .residual_stride = outputs,
                         .activation = shape.gated ? Activation::kSilu : Activation::kNone,
                         .gated = shape.gated};
  std::size_t next = 0;
  for (auto _ : state) {
    linear(pool(), path, arena, *weights[next], in, out);
    next = (next + 1) % weights.size();
  }
  const auto calls = static_cast<double>(state.iterations());
  const double flops = 2.0 * static_cast<double>(shape.outputs) * static_cast<double>(shape.inputs) * rows;
  state.counters["GB/s"] = benchmark::Counter(calls * static_cast<double>(weights[0]->packed_bytes()) * 1e-9,
                                              benchmark::Counter::kIsRate);
  state.counters["GFLOP/s"] = benchmark::Counter(calls * flops * 1e-9, benchmark::Counter::kIsRate);
}

}  // namespace

int main(int argc, char** argv) {
  for (const Shape& shape : kShapes) {
    for (const int rows : kRows) {
      benchmark::RegisterBenchmark(fmt::format("{}/rows:{}", shape.name, rows).c_str(),
                                   [&shape, rows](benchmark::State& state) { run(state, shape, rows); })
          ->UseRealTime();
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::AddCustomContext("path", std::string(isa_name(choose_isa())));
  benchmark::AddCustomContext("threads", std::to_string(pool().threads()));
  benchmark::RunSpecifiedBenchmarks();
}
