#include "backend/heap_pool.h"

#include <algorithm>

#include "base/log.h"

namespace mlxs {
HeapPool::HeapPool(const MetalOptimizations::MemoryPool& options, Memory memory)
    : options_(options), memory_(std::move(memory)) {
  const std::size_t bytes = static_cast<std::size_t>(options.heap_size_mb) << 20;
  try {
    for (int i = 0; i < options.num_heaps; ++i) {
      heaps_.push_back({.data = memory_.allocate(bytes), .bytes = bytes});
      if (!memory_.touch) continue;
      for (const int size : options.warmup_sizes_mb)
        memory_.touch(heaps_.back().data, std::min(bytes, static_cast<std::size_t>(size) << 20));
    }
  } catch (...) {
    for (const Heap& heap : heaps_) memory_.free(heap.data, heap.bytes);
    throw;
  }
  for (std::size_t i = heaps_.size(); i > 0; --i) free_.push_back(i - 1);
  stats_.enabled = true;
}

HeapPool::~HeapPool() {
  if (free_.size() != heaps_.size() || !temporary_.empty()) {
    log::warn("memory pool: {} heaps were not given back", heaps_.size() - free_.size() + temporary_.size());
  }
  for (const Heap& heap : heaps_) memory_.free(heap.data, heap.bytes);
}

HeapPool::Heap HeapPool::acquire(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const std::size_t heap_bytes = heaps_.front().bytes;
  if (!free_.empty() && bytes <= heap_bytes) {
    const Heap& heap = heaps_[free_.back()];
    free_.pop_back();
    if (options_.track_statistics) ++stats_.total_acquired;
    return heap;
  }
  if (options_.track_statistics) {
    ++stats_.exhaustion_events;
    ++stats_.fallback_events;
  }
  if (options_.log_exhaustion && temporary_.empty()) {
    log::info("memory pool: {} of {} heaps of {} MiB are free and {} MiB are needed; using others for now",
              free_.size(), heaps_.size(), heap_bytes >> 20, std::max(bytes, heap_bytes) >> 20);
  }
  const std::size_t size = std::max(bytes, heap_bytes);
  temporary_.push_back(memory_.allocate(size));
  return {.data = temporary_.back(), .bytes = size, .temporary = true};
}

void HeapPool::release(const Heap& heap) {
  if (heap.data == nullptr) return;
  const std::lock_guard lock(mutex_);
  if (const auto own = std::ranges::find(temporary_, heap.data); own != temporary_.end()) {
    temporary_.erase(own);
    memory_.free(heap.data, heap.bytes);
    return;
  }
  const auto pooled = std::ranges::find(heaps_, heap.data, &Heap::data);
  const auto index = static_cast<std::size_t>(pooled - heaps_.begin());
  if (pooled == heaps_.end() || std::ranges::find(free_, index) != free_.end()) return;
  free_.push_back(index);
  if (options_.track_statistics) ++stats_.total_released;
}

MemoryPoolStats HeapPool::stats() const {
  const std::lock_guard lock(mutex_);
  MemoryPoolStats now = stats_;
  now.pool_size = static_cast<int>(heaps_.size());
  now.available_count = static_cast<int>(free_.size());
  return now;
}

void HeapPool::reset_stats() {
  const std::lock_guard lock(mutex_);
  stats_ = {.enabled = true};
}

}  // namespace mlxs
