// How memory becomes KV pages. A page has all layers of its 16 tokens. Of a model that mixes layers with a
// window and layers that see everything it has the latter, and the former have pages of their own: fewer, as
// what a request's window has passed is given up. Pure.
#pragma once

#include <cstdint>

#include "backend/ops.h"
#include "mlxs/engine.h"
#include "models/model.h"

namespace mlxs {

// window_pages of the layers with a window; 0: every page has all layers.
struct KvPages {
  std::int64_t pages = 0, window_pages = 0;
};

struct KvCut {
  std::uint64_t page_bytes = 0;    // of all layers
  std::uint64_t window_bytes = 0;  // of these, of the layers with a window; 0: none have pages of their own
  std::int32_t window = 0;         // of these layers, in tokens
  std::int64_t running = 1;        // requests at once, at most
  std::int64_t step_tokens = 1;    // of a step, at most
  double share = 1;                // EngineOptions::kv_window_share

  // As many as so many bytes hold. The layers with a window get pages for all that may run at once; at most
  // `share` of what they would fill with every token, but enough for one request; at least an eighth of it
  // (or `share`), for prompts that begin like earlier ones.
  KvPages of(std::uint64_t bytes) const;
  // The fewest bytes that hold so many pages.
  std::uint64_t bytes_for(std::int64_t pages) const;
  // Tokens that each of so many requests may have at once, in whole pages.
  std::int64_t tokens_each(const KvPages& kv, std::int64_t requests) const;
};

// What kv_cache_dtype names. Throws kInvalidArgument.
DType kv_type(const EngineOptions& engine);

// Bytes of one page over all layers.
std::uint64_t page_bytes(const ModelConfig& config, DType kv_type);

// Pages on disk have all layers, so with prefix_cache_dir none have pages of their own.
KvCut kv_cut(const ModelConfig& config, const EngineOptions& engine, const Backend& backend);

}  // namespace mlxs
