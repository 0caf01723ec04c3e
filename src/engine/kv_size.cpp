// How many KV pages a model gets.
#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "engine/load_plan.h"
#include "engine/loaded_model.h"
#include "engine/runner.h"
#include "mlxs/error.h"

namespace mlxs {

namespace {

constexpr std::uint64_t kMostOwnPages = std::uint64_t{1} << 20;  // 16 million tokens

}  // namespace

// As asked. Else, of a device with its own memory, what weights and a step leave of the share that may be
// taken. Else room for every running request's whole context, but at most a fifth of the free memory and at
// least one context, or as much of it as memory holds: untouched pages cost nothing there.
std::int32_t LoadedModel::pages_for_kv(const EngineOptions& engine, const Backend& backend,
                                       bool context_was_asked) const {
  const std::uint64_t page = Runner::page_bytes(model_->config(), kv_type(engine));
  const auto one_context = static_cast<std::uint64_t>(KvPool::pages_for(info_.context_length));
  const DeviceInfo device = backend.device();
  std::uint64_t pages = engine.kv_cache_bytes / page;
  if (engine.kv_cache_bytes == 0 && device.own_memory) {
    const std::uint64_t usable = usable_bytes(device, engine), step = step_bytes(*file_, engine);
    pages = usable > step ? (usable - step) / page : 0;
    const std::uint64_t least =
        context_was_asked ? one_context : std::min<std::uint64_t>(one_context, kMinContext / kPageTokens);
    if (pages < least) {
      throw Error(
          ErrorCode::kOutOfMemory,
          fmt::format("no room for the KV cache of '{}': {} MB are free behind its weights, of which {} "
                      "MB may be taken (gpu_memory_utilization {}); a step needs {} MB and {} tokens "
                      "of KV {} MB",
                      info_.id, device.free_bytes / 1000000, usable / 1000000, engine.gpu_memory_utilization,
                      step / 1000000, least * kPageTokens, least * page / 1000000),
          "end other programs on the device, raise --gpu-memory-utilization, ask for less --context, "
          "take --kv-cache-dtype int8 or a smaller model",
          "gpu_memory_utilization");
    }
    const std::uint64_t most = one_context * static_cast<std::uint64_t>(engine.max_running);
    pages = std::min(pages, std::max(most, kMostOwnPages));
    log::info("the KV cache of '{}' takes {} MB: {} tokens", info_.id, pages * page / 1000000,
              pages * kPageTokens);
  } else if (engine.kv_cache_bytes == 0) {
    const std::uint64_t free_pages = device.free_bytes / page;
    const std::uint64_t least = context_was_asked ? one_context : std::min(one_context, free_pages / 10 * 9);
    pages =
        std::min<std::uint64_t>(one_context * static_cast<std::uint64_t>(engine.max_running), free_pages / 5);
    pages = std::max(pages, least);
  }
  if (engine.kv_cache_bytes == 0 && pages < one_context) {
    log::warn("the context of '{}' is limited to {} of its {} tokens: memory holds no more KV cache",
              info_.id, pages * kPageTokens, info_.context_length);
  }
  if (pages < 2) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("kv_cache_bytes = {} holds less than two KV pages of {} bytes",
                            engine.kv_cache_bytes, page),
                "give at least two pages, or 0 for the default", "kv_cache_bytes");
  }
  return static_cast<std::int32_t>(std::min<std::uint64_t>(pages, 1u << 30));
}

// Pages of preempted requests that the host may keep.
std::int32_t LoadedModel::swap_slots(const EngineOptions& engine) const {
  const std::uint64_t pages = engine.kv_swap_bytes / Runner::page_bytes(model_->config(), kv_type(engine));
  return static_cast<std::int32_t>(std::min<std::uint64_t>(pages, 1u << 30));
}

}  // namespace mlxs
