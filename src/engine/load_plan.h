// Whether a model fits this machine, before it is loaded: packed weights, KV cache and the activations of a
// step against the memory that is free. Weights and KV are what loading will take; activations are an upper
// estimate. Pure but for asking the backend how much memory it has.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "backend/ops.h"
#include "engine/kv_cut.h"
#include "formats/model_summary.h"
#include "mlxs/engine.h"

namespace mlxs {

// Of the device's free memory, what may be taken now: of a device with its own, up to gpu_memory_utilization
// of all it has. Throws kInvalidArgument on a share that is none.
std::uint64_t usable_bytes(const DeviceInfo& device, const EngineOptions& engine);

// Activations and logits of one step, an upper estimate; its token budget is chosen.
std::uint64_t step_bytes(const ModelFile& file, const EngineOptions& engine);

struct LoadPlan {
  std::uint64_t weight_bytes = 0;
  std::int32_t token_budget = 0;  // of a step
  KvCut kv;
  std::uint64_t batch_bytes = 0;   // activations and logits of one step
  std::uint64_t memory_bytes = 0;  // of the device
  std::uint64_t free_bytes = 0;    // of these, available now
  std::uint64_t usable_bytes = 0;  // of these, what may be taken
  std::int64_t context = 0;        // tokens that one request may have; the model's own unless asked for less
  std::uint64_t kv_bytes = 0;      // what a load with these options cannot do without
  bool kv_fixed = false;           // kv_cache_bytes was given: the cache has kv_bytes and no more

  std::uint64_t kv_bytes_per_token() const { return kv.page_bytes / kPageTokens; }  // in all layers
  std::uint64_t needed_bytes() const { return weight_bytes + batch_bytes + kv_bytes; }
  bool fits() const { return needed_bytes() <= usable_bytes; }
  // What the KV cache can be beside weights and activations, or is as asked.
  KvPages pages() const;
  std::int64_t tokens() const { return pages().pages * kPageTokens; }  // that it can hold
  // Context of each of so many users at once; at most the model's.
  std::int64_t tokens_each(std::int64_t users) const;
};

// The context to load a model with: what was asked for, 0 for its own. More than the `trained` of a decoder
// throws kInvalidArgument; of an encoder, which reads texts and not conversations, it is meant for the models
// beside it and becomes 0. name: of the model.
int context_to_load(int asked, std::int64_t trained, bool encoder, std::string_view name);

// context: as LoadOptions::context_length; more than the model's throws kInvalidArgument. Needs room for it,
// if given; else for kMinContext tokens.
inline constexpr std::int64_t kMinContext = 2048;
// The token budget that is not asked for is what the backend gains from, halved while a step's activations
// would take more than an eighth of what weights leave, down to kSureBudget.
inline constexpr std::int32_t kSureBudget = 512;
LoadPlan plan_load(const ModelFile& file, const Backend& backend, const EngineOptions& engine, int context);

// What models that are loaded behind one will take on the same device: all but the KV caches of those that
// generate, of which `caches` counts the one's own. Steps take turns in one memory: the largest counts.
struct LaterModels {
  std::uint64_t bytes = 0, step_bytes = 0;
  int caches = 1;
};
LaterModels plan_later(std::span<const std::string> paths, const Backend& backend,
                       const EngineOptions& engine);

// The options with that token budget; large_step_ms is 0 where it was asked for.
EngineOptions with_budget(const LoadPlan& plan, EngineOptions engine);

// Requests that a model of so many parameters may run at once.
int running_limit(const EngineOptions& engine, std::int64_t parameters);
inline constexpr std::int64_t kLargeModel = 30'000'000'000;  // parameters

// Throws kOutOfMemory with the figures if it does not fit. name: of the model.
void require_fit(const LoadPlan& plan, std::string_view name);

}  // namespace mlxs
