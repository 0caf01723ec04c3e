#include "backend/mlx/mlx_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "backend/cpu/machine.h"
#include "backend/metal_options.h"
#include "backend/mlx/mlx_factory.h"
#include "backend/mlx/mlx_moe.h"
#include "backend/mlx/mlx_weight.h"
#include "mlxs/error.h"

namespace mlxs::mlx_backend {
namespace {

// Freed buffers that MLX may keep for the next step. Without a bound it keeps them all, and Metal has a
// limited number of buffers.
constexpr std::size_t kCacheBytes = std::size_t{1} << 30;

const MlxWeight& mlx_weight(const Weight& weight) { return static_cast<const MlxWeight&>(weight); }

mx::array activate(const mx::array& x, Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return x * mx::sigmoid(x);
    case Activation::kGelu:
      return x * mx::array(0.5f, x.dtype()) *
             (mx::array(1.0f, x.dtype()) + mx::erf(x * mx::array(0.70710678f, x.dtype())));
    case Activation::kGeluTanh: {
      const mx::array cube = x * x * x;
      const mx::array inner =
          (x + cube * mx::array(0.044715f, x.dtype())) * mx::array(0.79788456f, x.dtype());
      return x * mx::array(0.5f, x.dtype()) * (mx::array(1.0f, x.dtype()) + mx::tanh(inner));
    }
    case Activation::kNone:
    case Activation::kSwigluClamped:  // needs both factors: gate()
      return x;
  }
  return x;
}

// act(g) · up.
mx::array gate(const mx::array& g, const mx::array& up, Activation activation) {
  if (activation != Activation::kSwigluClamped) return activate(g, activation) * up;
  const auto number = [&](float value) { return mx::array(value, g.dtype()); };
  const mx::array low = mx::minimum(g, number(7.0f));
  const mx::array clamped = mx::clip(up, number(-7.0f), number(7.0f));
  return low * mx::sigmoid(low * number(1.702f)) * (clamped + number(1.0f));
}

}  // namespace

MlxBackend::MlxBackend(int threads, const MetalOptimizations& optimizations)
    : gpu_(mx::is_available(mx::Device::gpu)),
      compute_(gpu_ ? mx::bfloat16 : mx::float32),
      pool_(threads),
      isa_(cpu::choose_isa()) {
  mx::set_cache_limit(kCacheBytes);
  memory_ = make_part(optimizations, optimizations.memory_pool.enabled, "memory_pool",
                      [&] { return std::make_unique<MlxMemoryPool>(optimizations.memory_pool); });
  copies_ = make_part(optimizations, optimizations.blit_queue.enabled, "blit_queue",
                      [&] { return std::make_unique<CopyQueue>(optimizations.blit_queue); });
}

MetalOptimizationsStats MlxBackend::optimization_stats() const {
  MetalOptimizationsStats stats;
  if (memory_) stats.memory_pool = memory_->stats();
  if (copies_) stats.blit_queue = copies_->stats();
  return stats;
}

DeviceInfo MlxBackend::device() const {
  const cpu::MemoryInfo memory = cpu::memory_info();  // unified on Apple silicon
  return {.name = "mlx",
          .description = gpu_ ? "Metal, bf16" : "MLX's CPU device, f32",
          .memory_bytes = memory.total,
          .free_bytes = memory.available};
}

WeightPtr MlxBackend::prepare(std::span<const RawWeight> parts, WeightUse use, WeightCache*) {
  // Nothing is packed, so there is nothing to cache.
  return std::make_unique<MlxWeight>(parts, use, compute_, copies_.get());
}

std::unique_ptr<KvStore> MlxBackend::make_kv(const KvSpec& spec) {
  return std::make_unique<MlxKvStore>(spec, mx::bfloat16);
}

void MlxBackend::copy_page(KvStore& kv, PageId from, PageId to) {
  static_cast<MlxKvStore&>(kv).copy_page(from, to);
}

Tensor MlxBackend::keep(mx::array array) {
  const std::int32_t rows = array.shape(0), columns = array.shape(1);
  tensors_.emplace_back(std::move(array));
  return {&tensors_.back(), rows, columns};
}

mx::array MlxBackend::gain(const NormSpec& spec) {
  const mx::array stored = mlx_weight(*spec.gain).vector();
  return spec.unit_offset ? stored + mx::array(1.0f) : stored;
}

mx::array MlxBackend::normalized(const mx::array& x, const NormSpec& spec) {
  const mx::array weight = mx::astype(gain(spec), compute_);
  if (spec.kind == NormSpec::Kind::kRms) return mx::fast::rms_norm(x, weight, spec.epsilon);
  std::optional<mx::array> bias;
  if (spec.bias != nullptr) bias = mx::astype(mlx_weight(*spec.bias).vector(), compute_);
  return mx::fast::layer_norm(x, weight, bias, spec.epsilon);
}

void MlxBackend::begin_step(const Batch& batch) {
  batch_ = batch;
  tensors_.clear();
  results_.reset();
  if (memory_) memory_->begin_step();
  sampling_.clear();
  sampled_.clear();
  index_.emplace(batch);
}

Tensor MlxBackend::embed(const Weight& table, float scale) {
  const mx::array ids(batch_.tokens.begin(), {static_cast<int>(batch_.tokens.size())}, mx::int32);
  mx::array x = mlx_weight(table).rows_at(ids);
  if (scale != 1.0f) x = x * mx::array(scale, compute_);
  return keep(std::move(x));
}

Tensor MlxBackend::add_positions(Tensor x, const Weight& table) {
  const mx::array ids(position_rows_.begin(), {static_cast<int>(position_rows_.size())}, mx::int32);
  mx::array y = array_of(x) + mlx_weight(table).rows_at(ids);
  release(x);
  return keep(std::move(y));
}

Tensor MlxBackend::norm(Tensor x, const NormSpec& spec) { return keep(normalized(array_of(x), spec)); }

Tensor MlxBackend::add_norm(Tensor x, const NormSpec& spec, Tensor residual, const NextSpec&) {
  mx::array y = array_of(residual) + normalized(array_of(x), spec);
  release(residual);
  return keep(std::move(y));
}

void MlxBackend::join_experts(std::span<Expert> experts) {
  const auto join = [&](WeightPtr Expert::*part) {
    std::vector<MlxWeight*> weights;
    for (Expert& expert : experts) weights.push_back(static_cast<MlxWeight*>((expert.*part).get()));
    if (weights.front() != nullptr) MlxWeight::join(weights);
  };
  for (WeightPtr Expert::*part : {&Expert::gate_up, &Expert::down, &Expert::gate_up_bias, &Expert::down_bias})
    join(part);
}

Tensor MlxBackend::moe(Tensor x, const MoeSpec& spec) {
  const mx::array input = spec.norm != nullptr ? normalized(array_of(x), *spec.norm) : array_of(x);
  const auto vector_of = [](const Weight* weight) -> std::optional<mx::array> {
    if (weight == nullptr) return std::nullopt;
    return mlx_weight(*weight).vector();
  };
  const ChosenExperts chosen =
      choose_experts(mx::astype(mlx_weight(*spec.router).multiply(input), mx::float32),
                     vector_of(spec.router_bias), vector_of(spec.selection_bias), spec);
  const ExpertRows rows(chosen.experts);
  const Expert& expert = spec.experts.front();  // has them all: join_experts()
  const auto multiply = [&](const mx::array& in, const WeightPtr& weight, const WeightPtr& bias) {
    const mx::array y = mlx_weight(*weight).multiply_each(in, rows.experts, rows.sorted);
    return bias ? y + mx::astype(mlx_weight(*bias).vector_each(rows.experts), compute_) : y;
  };
  const std::vector<mx::array> halves =
      mx::split(multiply(rows.spread(input), expert.gate_up, expert.gate_up_bias), 2, 1);
  const mx::array outputs =
      multiply(gate(halves[0], halves[1], spec.activation), expert.down, expert.down_bias);
  mx::array y = rows.mix(outputs, mx::astype(chosen.weights, compute_));
  if (spec.residual) {
    y = y + array_of(spec.residual);
    release(spec.residual);
  }
  return keep(std::move(y));
}

Tensor MlxBackend::linear(Tensor x, const Weight& weight, const LinearSpec& spec) {
  const mx::array input = spec.norm != nullptr ? normalized(array_of(x), *spec.norm) : array_of(x);
  mx::array y = mlx_weight(weight).multiply(input);
  if (spec.bias != nullptr) y = y + mx::astype(mlx_weight(*spec.bias).vector(), compute_);
  if (spec.gated) {
    const std::vector<mx::array> halves = mx::split(y, 2, 1);
    y = gate(halves[0], halves[1], spec.activation);
  } else {
    y = activate(y, spec.activation);
  }
  if (spec.residual) {
    y = y + array_of(spec.residual);
    release(spec.residual);  // y takes its place
  }
  return keep(std::move(y));
}

Tensor MlxBackend::assemble(std::span<const ColumnRuns> parts, std::int32_t) {
  std::map<std::int32_t, mx::array> pieces;  // by where they begin
  for (const ColumnRuns& part : parts) {
    for (std::int32_t i = 0; i < part.runs; ++i) {
      const std::int32_t first = part.first + i * part.step;
      pieces.emplace(part.to + i * part.to_step,
                     mx::slice(array_of(part.from), {0, first}, {part.from.rows, first + part.columns}));
    }
  }
  std::vector<mx::array> ordered;
  for (const auto& [first, piece] : pieces) ordered.push_back(piece);
  return keep(mx::concatenate(ordered, 1));
}

Tensor MlxBackend::attention(Tensor qkv, const AttentionSpec& spec) {
  HeadVectors vectors;
  if (spec.query_norm != nullptr) {
    vectors.query_gain = mx::astype(gain(*spec.query_norm), compute_);
    vectors.query_epsilon = spec.query_norm->epsilon;
  }
  if (spec.key_norm != nullptr) {
    vectors.key_gain = mx::astype(gain(*spec.key_norm), compute_);
    vectors.key_epsilon = spec.key_norm->epsilon;
  }
  if (spec.sinks != nullptr) vectors.sinks = mlx_weight(*spec.sinks).vector();
  return keep(
      mlx_backend::attention(array_of(qkv), spec, vectors, *index_, static_cast<MlxKvStore&>(*batch_.kv)));
}

Tensor MlxBackend::gather_sampled(Tensor x) {
  const auto& rows = batch_.sampled_rows;
  const mx::array wanted(rows.begin(), {static_cast<int>(rows.size())}, mx::int32);
  return keep(mx::take(array_of(x), wanted, 0));
}

Tensor MlxBackend::logits(Tensor x, const Weight& head, const NormSpec* norm, float soft_cap) {
  const mx::array input = norm != nullptr ? normalized(array_of(x), *norm) : array_of(x);
  mx::array y = mx::astype(mlx_weight(head).multiply(input), mx::float32);
  if (soft_cap > 0.0f) y = mx::tanh(y / mx::array(soft_cap)) * mx::array(soft_cap);
  results_ = mx::contiguous(y);
  return keep(*results_);
}

void MlxBackend::sample(Tensor, std::span<const SampleRow> rows) {
  sampling_.assign(rows.begin(), rows.end());
}

std::span<const Sampled> MlxBackend::end_step() {
  std::vector<mx::array> wanted;
  if (batch_.kv != nullptr) static_cast<MlxKvStore&>(*batch_.kv).collect(wanted);
  if (results_ && results_->shape(0) > 0) wanted.push_back(*results_);
  mx::eval(wanted);
  if (memory_) memory_->end_step();
  if (sampling_.empty()) return {};
  sampled_.resize(sampling_.size());
  cpu::sample(pool_, isa_, results_->data<float>(), results_->shape(0), results_->shape(1), sampling_,
              sampled_, sample_scratch_);
  return sampled_;
}

void MlxBackend::release(Tensor tensor) { static_cast<std::optional<mx::array>*>(tensor.handle)->reset(); }

void MlxBackend::read(Tensor tensor, std::span<float> out) {
  mx::array values = mx::contiguous(mx::astype(array_of(tensor), mx::float32));
  values.eval();
  std::copy_n(values.data<float>(), std::min(values.size(), out.size()), out.data());
}

std::unique_ptr<Backend> make_mlx_backend(int threads, const MetalOptimizations& optimizations) {
  return std::make_unique<MlxBackend>(threads, optimizations);
}

}  // namespace mlxs::mlx_backend
