// LoadedModel's side of the disk tier: what its pages are called, and requests that wait for theirs.
#include <fmt/format.h>

#include <utility>

#include "engine/load_plan.h"
#include "engine/loaded_model.h"

namespace mlxs {

void LoadedModel::make_disk_tier(const EngineOptions& engine, const Backend& backend) {
  const ModelConfig& config = model_->config();
  // Everything that KV depends on beside the tokens; a new layout of pages must have a new number here.
  const std::string kind =
      fmt::format("kv 1, {}, {} {}, {} layers of {} heads, {} + {} {}, context {}", file_->fingerprint(),
                  backend.device().name, backend.device().packed_layout, config.layers, config.kv_heads,
                  config.key_dim, config.value_dim, dtype_info(kv_type(engine)).name, info_.context_length);
  tier_ = std::make_unique<DiskTier>(store_, *pool_, *runner_->kv(), kind);
}

bool LoadedModel::restore_first(SchedRequest& entry) {
  const auto waiting = std::make_shared<SchedRequest>(std::move(entry));
  const bool reads = tier_->fetch(
      waiting->prompt, waiting->cache_salt,
      [weak = weak_from_this(), inbox = inbox_, waiting](DiskTier::Fetched fetched) {
        inbox->post([weak, waiting, pages = std::make_shared<DiskTier::Fetched>(std::move(fetched))] {
          const auto model = weak.lock();
          if (!model) return;  // unloaded, and its requests with it
          model->tier_->install(waiting->prompt, waiting->cache_salt, *pages);
          if (model->requests_.contains(waiting->id)) model->enqueue(std::move(*waiting));
        });
      });
  if (!reads) entry = std::move(*waiting);
  return reads;
}

}  // namespace mlxs
