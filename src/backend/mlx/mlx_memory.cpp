#include "backend/mlx/mlx_memory.h"

#include <mlx/mlx.h>

#include <algorithm>
#include <vector>

#include "base/log.h"

namespace mlxs::mlx_backend {

namespace mx = mlx::core;

MlxMemoryPool::MlxMemoryPool(const MetalOptimizations::MemoryPool& options)
    : options_(options), heap_bytes_(static_cast<std::size_t>(options.heap_size_mb) << 20) {
  mx::set_cache_limit(heap_bytes_ * static_cast<std::size_t>(options.num_heaps));
  for (const int size : options.warmup_sizes_mb) {
    const int bytes = std::min(size, options.heap_size_mb) << 20;
    std::vector<mx::array> buffers;  // all at once: so many lie in the cache afterwards
    for (int i = 0; i < options.num_heaps; ++i) buffers.push_back(mx::zeros({bytes}, mx::uint8));
    for (mx::array& buffer : buffers) buffer = mx::contiguous(buffer);
    mx::eval(buffers);
  }
  stats_.enabled = true;
  stats_.pool_size = stats_.available_count = options.num_heaps;
}

void MlxMemoryPool::begin_step() {
  {
    const std::lock_guard lock(mutex_);
    if (options_.track_statistics) stats_.total_released += static_cast<std::uint64_t>(held_);
    held_ = 0;
    stats_.available_count = stats_.pool_size;
  }
  active_ = mx::get_active_memory();
  mx::reset_peak_memory();
}

void MlxMemoryPool::end_step() {
  const std::size_t peak = mx::get_peak_memory(), used = peak > active_ ? peak - active_ : 0;
  const int heaps = std::max(1, static_cast<int>((used + heap_bytes_ - 1) / heap_bytes_));
  const std::lock_guard lock(mutex_);
  held_ = std::min(heaps, stats_.pool_size);
  stats_.available_count = stats_.pool_size - held_;
  if (options_.track_statistics) {
    stats_.total_acquired += static_cast<std::uint64_t>(held_);
    stats_.exhaustion_events += heaps > held_;
    stats_.fallback_events += static_cast<std::uint64_t>(heaps - held_);
  }
  if (options_.log_exhaustion && heaps > held_) {
    log::info("memory pool: a step took {} MiB, the pool has {} heaps of {} MiB", used >> 20, held_,
              heap_bytes_ >> 20);
  }
}

MemoryPoolStats MlxMemoryPool::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace mlxs::mlx_backend
