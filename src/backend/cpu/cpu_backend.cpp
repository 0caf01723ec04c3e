#include "backend/cpu/cpu_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "backend/cpu/cpu_weight.h"
#include "backend/cpu/machine.h"
#include "backend/cpu/moe.h"
#include "backend/cpu/pack.h"
#include "backend/cpu/regroup.h"
#include "backend/limits.h"
#include "backend/metal_options.h"
#include "backend/weight_cache.h"
#include "mlxs/error.h"

namespace mlxs::cpu {
namespace {

const CpuWeight& cpu_weight(const Weight& weight) { return static_cast<const CpuWeight&>(weight); }
const float* floats_of(const Weight* weight) {
  return weight != nullptr ? cpu_weight(*weight).floats() : nullptr;
}
const float* floats_of(Tensor tensor) { return static_cast<const float*>(tensor.handle); }

RowNorm row_norm(const NormSpec* spec) {
  if (spec == nullptr) return {};
  return {.kind = spec->kind == NormSpec::Kind::kRms ? RowNorm::Kind::kRms : RowNorm::Kind::kLayer,
          .gain = floats_of(spec->gain),
          .bias = floats_of(spec->bias),
          .epsilon = spec->epsilon,
          .unit_offset = spec->unit_offset};
}

HeadNorm head_norm(const NormSpec* spec) {
  if (spec == nullptr) return {};
  return {.gain = floats_of(spec->gain), .epsilon = spec->epsilon, .unit_offset = spec->unit_offset};
}

LinearInput input_of(Tensor x, const NormSpec* norm) {
  return {.x = floats_of(x),
          .stride = static_cast<std::size_t>(x.columns),
          .rows = x.rows,
          .norm = row_norm(norm)};
}

}  // namespace

CpuBackend::CpuBackend(int threads, Isa isa, const MetalOptimizations& optimizations)
    : isa_(isa),
      path_(linear_path(isa)),
      pool_(threads),
      heaps_(make_part(optimizations, optimizations.memory_pool.enabled, "memory_pool",
                       [&] { return make_heap_pool(optimizations.memory_pool); })),
      arena_(heaps_.get()) {
  if (optimizations.enabled && optimizations.blit_queue.enabled) {
    leave_out(optimizations, "blit_queue",
              "the cpu backend computes where the weights lie, nothing is copied");
  }
}

MetalOptimizationsStats CpuBackend::optimization_stats() const {
  MetalOptimizationsStats stats;
  if (heaps_) stats.memory_pool = heaps_->stats();
  return stats;
}

DeviceInfo CpuBackend::device() const {
  const MemoryInfo memory = memory_info();
  return {.name = "cpu",
          .description = fmt::format("{} thread{}, {}", pool_.threads(), pool_.threads() == 1 ? "" : "s",
                                     isa_name(isa_)),
          .memory_bytes = memory.total,
          .free_bytes = memory.available,
          .packed_layout = std::string(kPackedLayout)};
}

double CpuBackend::read_gb_per_second() { return measure_read_bandwidth(pool_.threads()); }

WeightPtr CpuBackend::prepare(std::span<const RawWeight> parts, WeightUse use, WeightCache* cache) {
  if (const auto mapped = cache != nullptr ? cache->mapping() : nullptr) {
    const auto known = [&](const Moving& moving) { return moving.weights.lock() == mapped; };
    if (std::ranges::none_of(moving_, known)) moving_.push_back({mapped});
  }
  return std::make_unique<CpuWeight>(pool_, parts, use, cache);
}

// The first step of a model is not delayed; the next ones move some of its weights each.
void CpuBackend::move_weights() {
  constexpr std::size_t kStepBytes = std::size_t{128} << 20;
  std::erase_if(moving_, [&](Moving& moving) {
    const auto weights = moving.weights.lock();
    if (!weights) return true;
    if (moving.steps++ == 0) return false;
    if (moving.steps == 2 && !weights->can_move(memory_info().available)) return true;
    return !weights->move(pool_, kStepBytes);
  });
}

std::size_t CpuBackend::packed_size(const RawWeight& raw, WeightUse use) const {
  const auto type = regrouped_type(raw.type);
  if (!type) return Backend::packed_size(raw, use);  // prepare() will refuse it
  if (use == WeightUse::kVector) return static_cast<std::size_t>(raw.rows * raw.columns) * sizeof(float);
  return panel_bytes(*packing_of(*type), raw.columns) * static_cast<std::size_t>(panels_of(raw.rows));
}

std::unique_ptr<KvStore> CpuBackend::make_kv(const KvSpec& spec) {
  return std::make_unique<CpuKvStore>(spec);
}

void CpuBackend::copy_page(KvStore& kv, PageId from, PageId to) {
  static_cast<CpuKvStore&>(kv).copy_page(from, to);
}

void CpuBackend::copy_window_page(KvStore& kv, PageId from, PageId to) {
  static_cast<CpuKvStore&>(kv).copy_window_page(from, to);
}

Tensor CpuBackend::allocate(std::int32_t rows, std::int64_t columns) {
  return {arena_.floats(static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns)), rows,
          static_cast<std::int32_t>(columns)};
}

// What probably follows `weight`: models multiply the same weights in the same order, step after step.
const NextWeight& CpuBackend::after(const CpuWeight& weight, bool gated) {
  if (last_ != nullptr) last_->precede(weight, gated);
  last_ = &weight;
  return weight.next();
}

void CpuBackend::begin_step(const Batch& batch) {
  if (batch.program == 0 || batch.program != batch_.program) last_ = nullptr;  // its model may be gone
  batch_ = batch;
  if (!moving_.empty()) move_weights();
  // The draws of a step that was left by an exception are nobody's.
  if (!std::exchange(begun_, true)) std::swap(draws_, draws_before_);
  draws_.count = 0;
  if (!batch.fed.empty()) feed();
  arena_.reset();
}

void CpuBackend::feed() {
  fed_tokens_.assign(batch_.tokens.begin(), batch_.tokens.end());
  for (std::size_t row = 0; row < fed_tokens_.size(); ++row) {
    const std::int32_t from = batch_.fed[row];
    if (from >= 0) fed_tokens_[row] = std::max(draws_before_.get()[static_cast<std::size_t>(from)].token, 0);
  }
  batch_.tokens = fed_tokens_;
}

Tensor CpuBackend::embed(const Weight& table, float scale) {
  const CpuWeight& weight = cpu_weight(table);
  const Tensor y = allocate(static_cast<std::int32_t>(batch_.tokens.size()), weight.columns());
  auto* out = static_cast<float*>(y.handle);
  pool_.parallel_for(y.rows, 8, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      float* to = out + row * y.columns;
      weight.read_row(batch_.tokens[static_cast<std::size_t>(row)], to);
      if (scale != 1.0f) {
        for (std::int32_t i = 0; i < y.columns; ++i) to[i] *= scale;
      }
    }
  });
  return y;
}

Tensor CpuBackend::add_positions(Tensor x, const Weight& table) {
  const CpuWeight& weight = cpu_weight(table);
  auto* rows = static_cast<float*>(x.handle);
  pool_.parallel_for(x.rows, 16, [&](std::int64_t begin, std::int64_t end, int) {
    std::vector<float> position(static_cast<std::size_t>(x.columns));
    for (std::int64_t row = begin; row < end; ++row) {
      weight.read_row(position_rows_[static_cast<std::size_t>(row)], position.data());
      float* to = rows + row * x.columns;
      for (std::int32_t i = 0; i < x.columns; ++i) to[i] += position[static_cast<std::size_t>(i)];
    }
  });
  return x;
}

Tensor CpuBackend::norm(Tensor x, const NormSpec& spec) {
  const Tensor y = allocate(x.rows, x.columns);
  normalize(pool_, path_, input_of(x, &spec), x.columns, static_cast<float*>(y.handle),
            static_cast<std::size_t>(y.columns));
  return y;
}

Tensor CpuBackend::add_norm(Tensor x, const NormSpec& spec, Tensor residual, const NextSpec&) {
  const auto columns = static_cast<std::size_t>(x.columns);
  auto* y = static_cast<float*>(residual.handle);
  const ScratchBlock scratch(arena_, static_cast<std::size_t>(x.rows) * columns * sizeof(float));
  auto* normed = static_cast<float*>(scratch.data());
  normalize(pool_, path_, input_of(x, &spec), x.columns, normed, columns);
  pool_.parallel_for(x.rows, 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::size_t i = static_cast<std::size_t>(begin) * columns;
         i < static_cast<std::size_t>(end) * columns; ++i) {
      y[i] += normed[i];
    }
  });
  return residual;
}

Tensor CpuBackend::moe(Tensor x, const MoeSpec& spec) {
  last_ = nullptr;  // which expert comes first is not known
  const Tensor y = spec.residual ? spec.residual : allocate(x.rows, x.columns);
  cpu::moe(pool_, path_, arena_, spec, input_of(x, spec.norm), static_cast<float*>(y.handle), routing_);
  return y;
}

Tensor CpuBackend::linear(Tensor x, const Weight& weight, const LinearSpec& spec) {
  const std::int64_t columns = spec.gated ? weight.rows() / 2 : weight.rows();
  const Tensor y = spec.residual ? spec.residual : allocate(x.rows, columns);
  const LinearOutput out{.y = static_cast<float*>(y.handle),
                         .stride = static_cast<std::size_t>(y.columns),
                         .bias = floats_of(spec.bias),
                         .residual = floats_of(spec.residual),
                         .residual_stride = static_cast<std::size_t>(spec.residual.columns),
                         .activation = spec.activation,
                         .gated = spec.gated};
  const CpuWeight& packed = cpu_weight(weight);
  cpu::linear(pool_, path_, arena_, packed, input_of(x, spec.norm), out, after(packed, spec.gated));
  return y;
}

Tensor CpuBackend::assemble(std::span<const ColumnRuns> parts, std::int32_t columns) {
  const Tensor y = allocate(parts.front().from.rows, columns);
  pool_.parallel_for(y.rows, 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      float* to = static_cast<float*>(y.handle) + row * columns;
      for (const ColumnRuns& part : parts) {
        const float* from = floats_of(part.from) + row * part.from.columns + part.first;
        for (std::int32_t i = 0; i < part.runs; ++i)
          std::copy_n(from + std::ptrdiff_t{i} * part.step, part.columns,
                      to + part.to + std::ptrdiff_t{i} * part.to_step);
      }
    }
  });
  return y;
}

Tensor CpuBackend::attention(Tensor qkv, const AttentionSpec& spec) {
  const Tensor y = allocate(qkv.rows, static_cast<std::int64_t>(spec.heads) * spec.value_dim);
  const AttentionVectors vectors{.query_norm = head_norm(spec.query_norm),
                                 .key_norm = head_norm(spec.key_norm),
                                 .sinks = floats_of(spec.sinks)};
  cpu::attention(pool_, isa_, floats_of(qkv), static_cast<float*>(y.handle), batch_,
                 static_cast<CpuKvStore&>(*batch_.kv), spec, vectors, attention_scratch_);
  return y;
}

Tensor CpuBackend::gather_sampled(Tensor x) {
  const Tensor y = allocate(static_cast<std::int32_t>(batch_.sampled_rows.size()), x.columns);
  const auto columns = static_cast<std::size_t>(x.columns);
  auto* out = static_cast<float*>(y.handle);
  for (const std::int32_t row : batch_.sampled_rows) {
    std::memcpy(out, floats_of(x) + static_cast<std::size_t>(row) * columns, columns * sizeof(float));
    out += columns;
  }
  return y;
}

Tensor CpuBackend::logits(Tensor x, const Weight& head, const NormSpec* norm, float soft_cap) {
  const Tensor y = allocate(x.rows, head.rows());
  // Always the 15-bit dots, never bf16 tiles: rounding the head flips close winners (top-1 agreement with the
  // fp32 oracle 98.6 % with tiles here, 99.1 % without).
  const LinearPath precise{path_.dots, nullptr};
  const CpuWeight& packed = cpu_weight(head);
  cpu::linear(pool_, precise, arena_, packed, input_of(x, norm),
              {.y = static_cast<float*>(y.handle),
               .stride = static_cast<std::size_t>(y.columns),
               .soft_cap = soft_cap},
              after(packed, false));
  return y;
}

void CpuBackend::sample(Tensor logits, std::span<const SampleRow> rows) {
  draws_.count = rows.size();
  if (draws_.rows.size() < rows.size()) draws_.rows.resize(rows.size());
  std::vector<SampleRow> complete;  // rows that count their own token
  std::vector<std::vector<TokenCount>> counts;
  if (std::ranges::any_of(rows, &SampleRow::counts_own)) {
    complete.assign(rows.begin(), rows.end());
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!rows[i].counts_own) continue;
      const auto own = static_cast<std::size_t>(batch_.sampled_rows[i]);
      complete[i].counts = counts.emplace_back(with_own(rows[i].counts, batch_.tokens[own]));
    }
    rows = complete;
  }
  cpu::sample(pool_, isa_, floats_of(logits), logits.rows, logits.columns, rows,
              std::span(draws_.rows).first(rows.size()), sample_scratch_);
}

void CpuBackend::resample(Tensor logits, std::span<const std::int32_t> rows, const Spec& spec,
                          std::span<Sampled> results) {
  cpu::resample(pool_, isa_, floats_of(logits), logits.columns, rows, spec, results, sample_scratch_);
}

void CpuBackend::submit_step() {
  begun_ = false;
  ++submitted_;
}

std::span<const Sampled> CpuBackend::end_step() {
  if (submitted_ == 0) submit_step();
  if (std::exchange(begun_, false)) std::swap(draws_, draws_before_);  // dropped
  return --submitted_ == 0 ? draws_.get() : draws_before_.get();
}

void CpuBackend::release(Tensor tensor) { arena_.release(tensor.handle); }

void CpuBackend::read(Tensor tensor, std::span<float> out) {
  const auto count = static_cast<std::size_t>(tensor.rows) * static_cast<std::size_t>(tensor.columns);
  std::copy_n(floats_of(tensor), std::min(count, out.size()), out.data());
}

}  // namespace mlxs::cpu
