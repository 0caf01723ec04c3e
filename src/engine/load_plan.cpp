#include "engine/load_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "kv/kv_pool.h"
#include "mlxs/error.h"
#include "models/encoder.h"

namespace mlxs {
namespace {

std::uint64_t packed_weights(const ModelFile& file, const Backend& backend) {
  std::uint64_t bytes = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    RawWeight raw{tensor.name, tensor.type, 1, tensor.shape.back(), tensor.bytes, tensor.scales};
    for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) raw.rows *= tensor.shape[i];
    bytes += backend.packed_size(raw, tensor.shape.size() == 1 ? WeightUse::kVector : WeightUse::kMatrix);
  }
  return bytes;
}

// Inputs, outputs and the widest intermediate of a layer for every row, and the logits of every running
// request.
std::uint64_t activations(const ModelSummary& s, const EngineOptions& engine) {
  const auto per_row =
      static_cast<std::uint64_t>(std::max<std::int64_t>(0, 6 * s.hidden + 3 * s.feed_forward));
  const auto logits =
      static_cast<std::uint64_t>(s.vocabulary) * static_cast<std::uint64_t>(engine.max_running);
  return 4 * (per_row * static_cast<std::uint64_t>(engine.token_budget) + 2 * logits);
}

// Of files of which we know no more, what they say of themselves.
KvCut kv_of(const ModelFile& file, const ModelSummary& s, const Backend& backend,
            const EngineOptions& engine) {
  if (const auto config = decoder_config(file)) return kv_cut(*config, engine, backend);
  KvCut kv{.page_bytes = s.kv_bytes_per_token * kPageTokens};
  if (kv_type(engine) == DType::kI8) {  // and a scale for each key and value
    const auto pairs = static_cast<std::uint64_t>(std::max<std::int64_t>(0, s.layers * s.kv_heads));
    kv.page_bytes = kv.page_bytes / 2 + pairs * 2 * sizeof(float) * kPageTokens;
  }
  return kv;
}

std::string megabytes(std::uint64_t bytes) {
  return fmt::format("{:.0f} MB", static_cast<double>(bytes) / 1e6);
}

}  // namespace

KvPages LoadPlan::pages() const {
  const std::uint64_t taken = weight_bytes + batch_bytes;
  if (kv.page_bytes == 0 || usable_bytes <= taken) return {};
  const std::uint64_t left = usable_bytes - taken;
  return kv.of(kv_fixed ? std::min(kv_bytes, left) : left);
}

std::int64_t LoadPlan::tokens_each(std::int64_t users) const {
  return std::min(context, kv.tokens_each(pages(), users));
}

std::uint64_t usable_bytes(const DeviceInfo& device, const EngineOptions& engine) {
  const double share = engine.gpu_memory_utilization;
  if (!(share >= 0.05 && share <= 1.0)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("gpu_memory_utilization = {} is not a share of the memory", share),
                "a number from 0.05 to 1; 0.9 is the default", "gpu_memory_utilization");
  }
  if (!device.own_memory) return device.free_bytes;
  const std::uint64_t kept =
      device.memory_bytes - static_cast<std::uint64_t>(share * static_cast<double>(device.memory_bytes));
  return device.free_bytes > kept ? device.free_bytes - kept : 0;
}

std::uint64_t step_bytes(const ModelFile& file, const EngineOptions& engine) {
  return activations(summarize(file), engine);
}

int context_to_load(int asked, std::int64_t trained, bool encoder, std::string_view name) {
  if (asked <= trained) return asked;
  if (encoder) return 0;
  throw Error(
      ErrorCode::kInvalidArgument,
      fmt::format("context_length {} exceeds the {} tokens that '{}' was trained for", asked, trained, name),
      "ask for less, or leave it out", "context_length");
}

LoadPlan plan_load(const ModelFile& file, const Backend& backend, const EngineOptions& asked, int context) {
  const ModelSummary summary = summarize(file);
  if (summary.context > 0)
    context = context_to_load(context, summary.context, is_encoder(file), file.path().filename().string());
  const DeviceInfo device = backend.device();
  LoadPlan plan;
  plan.weight_bytes = packed_weights(file, backend);
  plan.memory_bytes = device.memory_bytes;
  plan.free_bytes = device.free_bytes;
  plan.usable_bytes = usable_bytes(device, asked);
  const std::uint64_t left = plan.usable_bytes - std::min(plan.usable_bytes, plan.weight_bytes);
  EngineOptions engine = asked;
  if (asked.token_budget == 0) {
    engine.token_budget = std::max(kSureBudget, backend.prompt_rows());
    while (engine.token_budget > kSureBudget && activations(summary, engine) > left / 8)
      engine.token_budget = std::max(kSureBudget, engine.token_budget / 2);
  }
  plan.token_budget = engine.token_budget;
  plan.kv = kv_of(file, summary, backend, engine);
  plan.batch_bytes = activations(summary, engine);
  plan.context = context > 0 ? context : summary.context;
  const std::int64_t tokens = context > 0 ? context : std::min(plan.context, kMinContext);
  plan.kv_fixed = engine.kv_cache_bytes > 0;
  plan.kv_bytes =
      plan.kv_fixed ? engine.kv_cache_bytes
                    : plan.kv.bytes_for((std::max<std::int64_t>(tokens, 0) + kPageTokens - 1) / kPageTokens);
  return plan;
}

LaterModels plan_later(std::span<const std::string> paths, const Backend& backend,
                       const EngineOptions& engine) {
  LaterModels later;
  for (const std::string& path : paths) {
    const auto file = ModelFile::open(path);
    const LoadPlan plan = plan_load(*file, backend, engine, 0);
    const bool encoder = is_encoder(*file);
    later.bytes += plan.weight_bytes + (encoder ? plan.kv_bytes : 0);
    later.step_bytes = std::max(later.step_bytes, plan.batch_bytes);
    later.caches += encoder ? 0 : 1;
  }
  return later;
}

EngineOptions with_budget(const LoadPlan& plan, EngineOptions engine) {
  if (engine.token_budget != 0) engine.large_step_ms = 0;
  engine.token_budget = plan.token_budget;
  return engine;
}

int running_limit(const EngineOptions& engine, std::int64_t parameters) {
  return engine.large_models_alone && parameters >= kLargeModel ? 1 : engine.max_running;
}

void require_fit(const LoadPlan& plan, std::string_view name) {
  if (plan.fits()) return;
  throw Error(
      ErrorCode::kOutOfMemory,
      fmt::format("'{}' does not fit: {} of weights + {} of KV cache + {} for a step = {}, {} are free{}",
                  name, megabytes(plan.weight_bytes), megabytes(plan.kv_bytes), megabytes(plan.batch_bytes),
                  megabytes(plan.needed_bytes()), megabytes(plan.free_bytes),
                  plan.usable_bytes == plan.free_bytes
                      ? ""
                      : fmt::format(", of which {} may be taken (gpu_memory_utilization)",
                                    megabytes(plan.usable_bytes))),
      "close other programs, take a smaller quantization, ask for less with --context or --kv-cache-bytes; "
      "--force tries it all the same");
}

}  // namespace mlxs
