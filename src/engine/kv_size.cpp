// How many KV pages a model gets.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "engine/kv_cut.h"
#include "engine/load_plan.h"
#include "engine/loaded_model.h"
#include "mlxs/error.h"

namespace mlxs {

namespace {

constexpr std::int64_t kMostOwnPages = 1 << 20;  // 16 million tokens

}  // namespace

// As asked. Else, of a device with its own memory, what weights and a step leave of the share that may be
// taken, divided among this model and those that will be loaded behind it. Else room for every running
// request's whole context, but at most a fifth of the free memory and at least one context, or as much of it
// as memory holds: untouched pages cost nothing there.
KvPages LoadedModel::pages_for_kv(const EngineOptions& engine, const Backend& backend,
                                  const LoadOptions& options) const {
  const bool context_was_asked = options.context_length > 0;
  const KvCut cut = kv_cut(model_->config(), engine, backend);
  const std::int64_t one_context = KvPool::pages_for(info_.context_length);
  const DeviceInfo device = backend.device();
  std::uint64_t bytes = engine.kv_cache_bytes;
  if (engine.kv_cache_bytes == 0 && device.own_memory) {
    const LaterModels later = plan_later(options.next, backend, engine);
    const std::uint64_t usable = usable_bytes(device, engine),
                        step = std::max(step_bytes(*file_, engine), later.step_bytes),
                        kept = step + later.bytes;
    bytes = usable > kept ? (usable - kept) / static_cast<std::uint64_t>(later.caches) : 0;
    const std::int64_t least =
        context_was_asked ? one_context : std::min<std::int64_t>(one_context, kMinContext / kPageTokens);
    if (cut.of(bytes).pages < least) {
      throw Error(
          ErrorCode::kOutOfMemory,
          fmt::format(
              "no room for the KV cache of '{}': {} MB are free behind its weights, of which {} "
              "MB may be taken (gpu_memory_utilization {}); a step needs {} MB{} and {} tokens "
              "of KV {} MB",
              info_.id, device.free_bytes / 1000000, usable / 1000000, engine.gpu_memory_utilization,
              step / 1000000,
              later.bytes > 0 ? fmt::format(", the models behind it {} MB", later.bytes / 1000000) : "",
              least * kPageTokens, cut.bytes_for(least) / 1000000),
          "end other programs on the device, raise --gpu-memory-utilization, ask for less --context, "
          "take --kv-cache-dtype int8 or a smaller model",
          "gpu_memory_utilization");
    }
    const std::int64_t most = std::max<std::int64_t>(one_context * engine.max_running, kMostOwnPages);
    bytes = std::min(bytes, cut.bytes_for(most));
    log::info("the KV cache of '{}' takes {} MB: {} tokens", info_.id, bytes / 1000000,
              cut.of(bytes).pages * kPageTokens);
  } else if (engine.kv_cache_bytes == 0) {
    const std::uint64_t one = cut.bytes_for(one_context);
    bytes = std::min(cut.bytes_for(one_context * engine.max_running), device.free_bytes / 5);
    bytes = std::max(bytes, context_was_asked ? one : std::min(one, device.free_bytes / 10 * 9));
  }
  const KvPages kv = cut.of(bytes);
  if (kv.pages < 2) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("kv_cache_bytes = {} holds less than two KV pages of {} bytes",
                            engine.kv_cache_bytes, cut.page_bytes),
                "give at least two pages, or 0 for the default", "kv_cache_bytes");
  }
  if (kv.pages < one_context) {
    log::warn("the context of '{}' is limited to {} of its {} tokens: {}", info_.id, kv.pages * kPageTokens,
              info_.context_length,
              engine.kv_cache_bytes == 0 ? std::string("memory holds no more KV cache")
                                         : fmt::format("kv_cache_bytes = {} holds no more, {} would hold all",
                                                       engine.kv_cache_bytes, cut.bytes_for(one_context)));
  }
  if (kv.window_pages > 0) {
    log::debug("KV cache of '{}': {} tokens, and {} in the layers that see {}; {} if those kept every token",
               info_.id, kv.pages * kPageTokens, kv.window_pages * kPageTokens, cut.window,
               bytes / cut.page_bytes * kPageTokens);
  }
  if (!engine.prefix_cache_dir.empty()) {
    EngineOptions without = engine;
    without.prefix_cache_dir.clear();
    const KvPages more = kv_cut(model_->config(), without, backend).of(bytes);
    if (more.window_pages > 0) {
      log::info(
          "KV cache of '{}': {} tokens, as pages on disk have all layers: those with a window keep every "
          "token (kv_window_share has no effect); without prefix_cache_dir there were room for {}",
          info_.id, kv.pages * kPageTokens, more.pages * kPageTokens);
    }
  }
  return kv;
}

// Pages of preempted requests that the host may keep.
std::int32_t LoadedModel::swap_slots(const EngineOptions& engine) const {
  const std::uint64_t pages = engine.kv_swap_bytes / page_bytes(model_->config(), kv_type(engine));
  return static_cast<std::int32_t>(std::min<std::uint64_t>(pages, 1u << 30));
}

}  // namespace mlxs
