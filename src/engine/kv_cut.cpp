#include "engine/kv_cut.h"

#include <fmt/format.h>

#include <algorithm>

#include "kv/kv_pool.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

constexpr std::int64_t kMostPages = 1 << 30;

}  // namespace

KvPages KvCut::of(std::uint64_t bytes) const {
  const auto whole = static_cast<std::int64_t>(std::min<std::uint64_t>(bytes / page_bytes, kMostPages));
  if (window_bytes == 0) return {.pages = whole};
  const auto most = static_cast<std::int64_t>(share * static_cast<double>(whole));
  const std::int64_t window_pages = std::max(
      WindowPlaces::enough(window, 1, step_tokens),
      std::clamp(WindowPlaces::enough(window, running, step_tokens), std::min(most, whole / 8), most));
  if (window_pages >= whole) return {.pages = whole};
  const std::uint64_t left = bytes - static_cast<std::uint64_t>(window_pages) * window_bytes;
  return {.pages = static_cast<std::int64_t>(
              std::min<std::uint64_t>(left / (page_bytes - window_bytes), kMostPages)),
          .window_pages = window_pages};
}

std::uint64_t KvCut::bytes_for(std::int64_t pages) const {
  std::uint64_t enough = static_cast<std::uint64_t>(pages) * page_bytes, too_few = 0;
  if (window_bytes == 0) return enough;
  while (enough - too_few > 1) {
    const std::uint64_t bytes = too_few + (enough - too_few) / 2;
    (of(bytes).pages >= pages ? enough : too_few) = bytes;
  }
  return enough;
}

std::int64_t KvCut::tokens_each(const KvPages& kv, std::int64_t requests) const {
  requests = std::max<std::int64_t>(requests, 1);
  std::int64_t each = kv.pages / requests;
  if (kv.window_pages > 0) {
    const std::int64_t own = (kv.window_pages - WindowPlaces::enough(window, 0, step_tokens)) / requests;
    if (own < WindowPlaces::enough(window, 1, 0)) each = std::clamp<std::int64_t>(own, 0, each);
  }
  return each * kPageTokens;
}

DType kv_type(const EngineOptions& engine) {
  if (engine.kv_cache_dtype == "auto" || engine.kv_cache_dtype == "bf16") return DType::kBF16;
  if (engine.kv_cache_dtype == "int8") return DType::kI8;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("kv_cache_dtype = '{}' is not a type of the KV cache", engine.kv_cache_dtype),
              "one of: auto, bf16, int8", "kv_cache_dtype");
}

std::uint64_t page_bytes(const ModelConfig& config, DType kv_type) {
  const auto heads = static_cast<std::uint64_t>(config.layers) * static_cast<std::uint64_t>(config.kv_heads);
  const std::uint64_t scales = kv_type == DType::kI8 ? 2 * sizeof(float) : 0;  // of a token's key and value
  return heads * kPageTokens * (row_bytes(kv_type, config.key_dim + config.value_dim) + scales);
}

KvCut kv_cut(const ModelConfig& config, const EngineOptions& engine, const Backend& backend) {
  KvCut cut{.page_bytes = page_bytes(config, kv_type(engine)),
            .window = config.layer_window,
            .running = engine.max_running,
            .step_tokens = engine.token_budget,
            .share = engine.kv_window_share};
  const auto windowed = static_cast<std::uint64_t>(std::ranges::count(config.windowed, true));
  const bool apart = backend.has_window_pages() && engine.prefix_cache_dir.empty() &&
                     engine.kv_window_share < 1 && config.layer_window < config.context;
  if (apart) cut.window_bytes = cut.page_bytes / static_cast<std::uint64_t>(config.layers) * windowed;
  return cut;
}

}  // namespace mlxs
