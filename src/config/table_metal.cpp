// The keys of metal_optimizations, under the names of the switches in mlxs/metal_optimizations.h.
#include "config/table.h"

namespace mlxs::config {

std::vector<Key> metal_keys() {
  return {
      MLXS_KEY("metal_optimizations.enabled", engine.metal_optimizations.enabled)
          .says("The master switch: while it is off, none of the following acts"),
      MLXS_KEY("metal_optimizations.graceful_fallback", engine.metal_optimizations.graceful_fallback)
          .says("What a backend cannot have is logged and left out; off: the server does not start"),
      MLXS_KEY("metal_optimizations.fallback_log_level", engine.metal_optimizations.fallback_log_level)
          .one_of({"debug", "info", "warn", "error"})
          .says("At which level that is logged"),
      MLXS_KEY("metal_optimizations.expose_metrics", engine.metal_optimizations.expose_metrics)
          .says("mlxs_pool_*, mlxs_blit_* and mlxs_ring_* on GET /metrics"),
      MLXS_KEY("metal_optimizations.memory_pool.enabled", engine.metal_optimizations.memory_pool.enabled)
          .flag("--memory-pool")
          .says("Keep a step's memory in heaps that are reserved once"),
      MLXS_KEY("metal_optimizations.memory_pool.heap_size_mb",
               engine.metal_optimizations.memory_pool.heap_size_mb)
          .range(64, 4096)
          .in("MB")
          .says("Size of a heap, at most max_heap_size_mb"),
      MLXS_KEY("metal_optimizations.memory_pool.num_heaps", engine.metal_optimizations.memory_pool.num_heaps)
          .range(2, 16)
          .says("Heaps, at least min_heaps"),
      MLXS_KEY("metal_optimizations.memory_pool.warmup_buffer_sizes_mb",
               engine.metal_optimizations.memory_pool.warmup_sizes_mb)
          .range(1, 4096)
          .in("MB")
          .says("Sizes that are touched in every heap before the first step"),
      MLXS_KEY("metal_optimizations.memory_pool.track_statistics",
               engine.metal_optimizations.memory_pool.track_statistics)
          .says("Count what the pool does"),
      MLXS_KEY("metal_optimizations.memory_pool.log_exhaustion",
               engine.metal_optimizations.memory_pool.log_exhaustion)
          .also("metal_optimizations.memory_pool.log_pool_exhaustion")
          .says("Log when no heap is free"),
      MLXS_KEY("metal_optimizations.memory_pool.max_heap_size_mb",
               engine.metal_optimizations.memory_pool.max_heap_size_mb)
          .range(256, 4096)
          .in("MB")
          .says("Largest size of a heap"),
      MLXS_KEY("metal_optimizations.memory_pool.min_heaps", engine.metal_optimizations.memory_pool.min_heaps)
          .range(1, 8)
          .says("Least number of heaps"),
      MLXS_KEY("metal_optimizations.blit_queue.enabled", engine.metal_optimizations.blit_queue.enabled)
          .flag("--blit-queue")
          .says("Copy weights to the device on a thread of its own"),
      MLXS_KEY("metal_optimizations.blit_queue.max_pending_ops",
               engine.metal_optimizations.blit_queue.max_pending_ops)
          .range(1, 64)
          .also("metal_optimizations.blit_queue.max_concurrent_ops")
          .says("Copies that wait; the next one waits for a place"),
      MLXS_KEY("metal_optimizations.blit_queue.staging_buffer_size_mb",
               engine.metal_optimizations.blit_queue.staging_buffer_size_mb)
          .range(1, 1024)
          .in("MB")
          .says("Size of one copy"),
      MLXS_KEY("metal_optimizations.blit_queue.queue_priority",
               engine.metal_optimizations.blit_queue.queue_priority)
          .range(0, 2)
          .says("0 low, 1 normal, 2 high"),
      MLXS_KEY("metal_optimizations.blit_queue.use_shared_events",
               engine.metal_optimizations.blit_queue.use_shared_events)
          .says("Copies signal when they are done; without, each is waited for at once"),
      MLXS_KEY("metal_optimizations.blit_queue.track_metrics",
               engine.metal_optimizations.blit_queue.track_metrics)
          .says("Measure the copies"),
      MLXS_KEY("metal_optimizations.blit_queue.verbose_logging",
               engine.metal_optimizations.blit_queue.verbose_logging)
          .says("Log each copy at debug level"),
      MLXS_KEY("metal_optimizations.command_buffer_ring.enabled",
               engine.metal_optimizations.command_buffer_ring.enabled)
          .says("Let so many steps be under way at once"),
      MLXS_KEY("metal_optimizations.command_buffer_ring.ring_size",
               engine.metal_optimizations.command_buffer_ring.ring_size)
          .range(2, 3)
          .says("How many"),
      MLXS_KEY("metal_optimizations.command_buffer_ring.timeout_ms",
               engine.metal_optimizations.command_buffer_ring.timeout_ms)
          .range(0, 3'600'000)
          .in("ms")
          .says("Of waiting for a place; 0: as long as it takes"),
      MLXS_KEY("metal_optimizations.command_buffer_ring.track_statistics",
               engine.metal_optimizations.command_buffer_ring.track_statistics)
          .says("Count what the ring does"),
      MLXS_KEY("metal_optimizations.command_buffer_ring.log_wait_events",
               engine.metal_optimizations.command_buffer_ring.log_wait_events)
          .says("Log each wait for a place"),
  };
}

}  // namespace mlxs::config
