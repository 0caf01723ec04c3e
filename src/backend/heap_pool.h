// Heaps of one size that are reserved once and handed out again and again: the step arenas' memory when
// metal_optimizations.memory_pool is on. Asking never blocks and never fails for want of a free heap: then a
// temporary one is made. Thread-safe. The constructor throws what `memory` throws.
#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <vector>

#include "mlxs/metal_optimizations.h"

namespace mlxs {

class HeapPool {
 public:
  struct Heap {
    std::byte* data = nullptr;
    std::size_t bytes = 0;
    bool temporary = false;
  };
  struct Memory {
    std::function<std::byte*(std::size_t)> allocate;  // throws kOutOfMemory
    std::function<void(std::byte*, std::size_t)> free;
    std::function<void(std::byte*, std::size_t)> touch;  // makes the first bytes' memory real; may be empty
  };

  HeapPool(const MetalOptimizations::MemoryPool& options, Memory memory);
  ~HeapPool();  // warns of heaps that are still out
  HeapPool(const HeapPool&) = delete;
  HeapPool& operator=(const HeapPool&) = delete;

  // At least `bytes`; a pooled heap if one is free and they fit.
  Heap acquire(std::size_t bytes = 0);
  void release(const Heap& heap);  // one without memory or not of this pool: nothing happens
  MemoryPoolStats stats() const;
  void reset_stats();  // the counters; the pool stays

 private:
  const MetalOptimizations::MemoryPool options_;
  const Memory memory_;
  mutable std::mutex mutex_;
  std::vector<Heap> heaps_;            // pooled
  std::vector<std::size_t> free_;      // indices of heaps_
  std::vector<std::byte*> temporary_;  // out now
  MemoryPoolStats stats_;
};

}  // namespace mlxs
