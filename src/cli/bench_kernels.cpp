#include "cli/bench_kernels.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>

#include "mlxs/error.h"

namespace mlxs::cli {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr DType kFormats[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,   DType::kQ8_0,
                              DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kMXFP4,
                              DType::kF16,  DType::kBF16, DType::kF32};
constexpr std::size_t kWorkingSet = std::size_t{256} << 20;  // bytes, several times any cache

struct Shape {
  const char* name;
  std::int64_t outputs, inputs;
  bool norm, gated, residual, head;
};
constexpr Shape kShapes[] = {
    {"qkv", 960, 576, true, false, false, false},     {"attention_out", 576, 576, false, false, true, false},
    {"gate_up", 3072, 576, true, true, false, false}, {"down", 576, 1536, false, false, true, false},
    {"head", 49152, 576, true, false, false, true},
};

DType format_named(const std::string& name) {
  for (const DType type : kFormats) {
    if (dtype_info(type).name == name) return type;
  }
  throw Error(ErrorCode::kInvalidArgument, fmt::format("'{}' is no weight format of this benchmark", name),
              fmt::format("one of {}", fmt::join(kernel_formats(), ", ")), "--format");
}

// Random codes under finite scales, whatever the format: no byte is an exponent of infinity.
std::vector<std::byte> random_bytes(std::size_t count) {
  std::mt19937 random(1);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 0x3b);
  return bytes;
}

WeightPtr prepare_normal(Backend& backend, std::int64_t rows, std::int64_t columns, WeightUse use) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  for (float& value : values) value = normal(random);
  const RawWeight raw{"bench", DType::kF32, rows, columns, std::as_bytes(std::span(values))};
  return backend.prepare(std::span(&raw, 1), use, nullptr);
}

WeightPtr prepare_codes(Backend& backend, DType type, std::int64_t rows, std::int64_t columns) {
  // 256-wide blocks do not divide 576: the row is cut to whole blocks, the shape keeps its name.
  const std::int64_t whole = columns / dtype_info(type).block_elements * dtype_info(type).block_elements;
  const std::vector<std::byte> bytes = random_bytes(static_cast<std::size_t>(rows) * row_bytes(type, whole));
  const RawWeight raw{"bench", type, rows, whole, bytes};
  return backend.prepare(std::span(&raw, 1), WeightUse::kMatrix, nullptr);
}

class ShapeBench {
 public:
  ShapeBench(Backend& backend, const Shape& shape, DType type) : backend_(backend), shape_(shape) {
    for (std::size_t bytes = 0; bytes < kWorkingSet; bytes += weights_.back()->packed_bytes()) {
      weights_.push_back(prepare_codes(backend, type, shape.outputs, shape.inputs));
    }
    columns_ = weights_.front()->columns();
    gain_ = prepare_normal(backend, 1, columns_, WeightUse::kVector);
  }

  KernelFigure run(int rows, double seconds) {
    const WeightPtr inputs = prepare_normal(backend_, rows, columns_, WeightUse::kEmbedding);
    const std::int64_t outputs = shape_.gated ? shape_.outputs / 2 : shape_.outputs;
    WeightPtr residual;
    if (shape_.residual) residual = prepare_normal(backend_, rows, outputs, WeightUse::kEmbedding);
    step(rows, *inputs, residual.get(), 2);  // warm: the arena grows
    int calls = 4;
    double took = 0;
    while ((took = step(rows, *inputs, residual.get(), calls)) < seconds) {
      calls = std::max(calls + 1, static_cast<int>(calls * std::min(seconds * 1.2 / took, 20.0)));
    }
    const double call = took / calls;
    const double macs = static_cast<double>(shape_.outputs) * static_cast<double>(columns_) * rows;
    return {.name = shape_.name,
            .outputs = shape_.outputs,
            .inputs = columns_,
            .rows = rows,
            .microseconds = call * 1e6,
            .gb_per_second = static_cast<double>(weights_.front()->packed_bytes()) / call * 1e-9,
            .gflop_per_second = 2.0 * macs / call * 1e-9};
  }

 private:
  // Seconds of `calls` products in one step.
  double step(int rows, const Weight& inputs, const Weight* residuals, int calls) {
    std::vector<TokenId> tokens(static_cast<std::size_t>(rows));
    std::iota(tokens.begin(), tokens.end(), 0);
    const std::vector<std::int32_t> positions(tokens.begin(), tokens.end());
    const std::vector<PageId> pages(static_cast<std::size_t>(rows + 15) / 16, 0);
    const SequenceSpan sequence{.first_row = 0, .num_rows = rows, .start = 0, .pages = pages};
    backend_.begin_step({.tokens = tokens, .positions = positions, .sequences = {&sequence, 1}});
    const Tensor x = backend_.embed(inputs);
    const Tensor residual = residuals != nullptr ? backend_.embed(*residuals) : Tensor{};
    const NormSpec norm{.gain = gain_.get()};
    LinearSpec spec{.norm = shape_.norm ? &norm : nullptr,
                    .activation = shape_.gated ? Activation::kSilu : Activation::kNone,
                    .gated = shape_.gated,
                    .residual = residual};
    const auto started = std::chrono::steady_clock::now();
    for (int call = 0; call < calls; ++call) {
      const Tensor y = backend_.linear(x, *weights_[next_], spec);
      if (!residual) backend_.release(y);  // else y may be the residual's memory
      next_ = (next_ + 1) % weights_.size();
    }
    backend_.end_step();
    return Seconds(std::chrono::steady_clock::now() - started).count();
  }

  Backend& backend_;
  const Shape& shape_;
  std::vector<WeightPtr> weights_;
  WeightPtr gain_;
  std::int64_t columns_ = 0;
  std::size_t next_ = 0;
};

}  // namespace

std::vector<std::string> kernel_formats() {
  std::vector<std::string> names;
  for (const DType type : kFormats) names.emplace_back(dtype_info(type).name);
  return names;
}

std::vector<KernelFigure> run_kernels(Backend& backend, const KernelBench& what) {
  const DType format = format_named(what.format);
  std::vector<KernelFigure> figures;
  for (const Shape& shape : kShapes) {
    ShapeBench bench(backend, shape, shape.head ? DType::kQ8_0 : format);
    for (const int rows : what.rows) figures.push_back(bench.run(rows, what.seconds));
  }
  return figures;
}

}  // namespace mlxs::cli
