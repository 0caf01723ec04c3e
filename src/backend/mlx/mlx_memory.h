// metal_optimizations.memory_pool on MLX, whose allocator keeps freed buffers by itself: the pool bounds what
// it keeps and fills it before the first step. A heap is heap_size_mb of a step's memory; what a step needs
// beyond the pool comes from the system and goes back to it. Engine thread, but for stats().
#pragma once

#include <cstddef>
#include <mutex>

#include "mlxs/metal_optimizations.h"

namespace mlxs::mlx_backend {

class MlxMemoryPool {
 public:
  explicit MlxMemoryPool(const MetalOptimizations::MemoryPool& options);

  void begin_step();              // the last step's heaps are free
  void end_step();                // how many this one took
  MemoryPoolStats stats() const;  // any thread

 private:
  const MetalOptimizations::MemoryPool options_;
  const std::size_t heap_bytes_;
  std::size_t active_ = 0;  // bytes in use when the step began
  mutable std::mutex mutex_;
  int held_ = 0;
  MemoryPoolStats stats_;
};

}  // namespace mlxs::mlx_backend
