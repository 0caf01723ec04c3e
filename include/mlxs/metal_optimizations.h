// Switches for how a device's memory, transfers and steps are managed, under the names of the configuration
// tree (metal_optimizations.*); they act on every backend that has the thing. All off by default. Needs only
// the standard library.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mlxs {

struct MetalOptimizations {
  bool enabled = false;  // off: none of the following, whatever it says
  // What a backend cannot have is logged and left out; false: making the engine fails instead.
  bool graceful_fallback = true;
  std::string fallback_log_level = "warn";  // "debug", "info", "warn", "error"
  bool expose_metrics = true;               // mlxs_pool_*, mlxs_blit_*, mlxs_ring_* of GET /metrics

  struct MemoryPool {  // a step's activations come from heaps that are reserved once
    bool enabled = false;
    int heap_size_mb = 256;                            // 64 … max_heap_size_mb
    int num_heaps = 4;                                 // max(2, min_heaps) … 16
    std::vector<int> warmup_sizes_mb = {32, 64, 128};  // touched in every heap before the first step
    bool track_statistics = true;
    bool log_exhaustion = true;
    int max_heap_size_mb = 2048;  // 256 … 4096
    int min_heaps = 2;            // 1 … 8
  } memory_pool;

  struct BlitQueue {  // weights are copied to the device beside what the engine's thread does meanwhile
    bool enabled = false;
    int max_pending_ops = 8;          // 1 … 64; the next one waits
    int staging_buffer_size_mb = 64;  // 1 … 1024: bytes of one copy
    int queue_priority = 1;           // 0 low, 1 normal, 2 high
    bool use_shared_events = true;    // false: a copy is waited for at once
    bool track_metrics = true;
    bool verbose_logging = false;  // each copy at debug level
  } blit_queue;

  struct CommandBufferRing {  // so many steps may be under way at once
    bool enabled = false;
    int ring_size = 2;   // 2 … 3
    int timeout_ms = 0;  // of waiting for a place; 0: as long as it takes
    bool track_statistics = true;
    bool log_wait_events = false;
  } command_buffer_ring;
};

struct MemoryPoolStats {
  bool enabled = false;
  std::uint64_t total_acquired = 0, total_released = 0;  // of pooled heaps
  std::uint64_t exhaustion_events = 0;  // a heap was wanted and none was free, or none was large enough
  std::uint64_t fallback_events = 0;    // memory that was taken from the system instead
  int pool_size = 0, available_count = 0;
  double utilization() const {
    return pool_size == 0 ? 0.0 : 1.0 - static_cast<double>(available_count) / pool_size;
  }
};

struct BlitQueueStats {
  bool enabled = false;
  std::uint64_t total_uploads = 0, total_downloads = 0, uploaded_bytes = 0;
  double upload_ms = 0, download_ms = 0;  // together
  double total_overlap_ms = 0;            // of them, while nobody waited
  std::uint64_t sync_wait_count = 0;      // waits for a copy that was not done
  double sync_wait_ms = 0;
  double avg_upload_ms() const {
    return total_uploads == 0 ? 0.0 : upload_ms / static_cast<double>(total_uploads);
  }
  double avg_download_ms() const {
    return total_downloads == 0 ? 0.0 : download_ms / static_cast<double>(total_downloads);
  }
  double avg_sync_wait_ms() const {
    return sync_wait_count == 0 ? 0.0 : sync_wait_ms / static_cast<double>(sync_wait_count);
  }
  double overlap_ratio() const {
    const double all = upload_ms + download_ms;
    return all <= 0.0 ? 0.0 : total_overlap_ms / all;
  }
};

struct CommandBufferRingStats {
  bool enabled = false;
  int ring_size = 0, available_count = 0, in_flight_count = 0;
  std::uint64_t total_acquired = 0, total_released = 0, wait_events = 0, timeout_events = 0, rotations = 0;
  double avg_wait_time_us = 0, max_wait_time_us = 0;
};

struct MetalOptimizationsStats {
  MemoryPoolStats memory_pool;
  BlitQueueStats blit_queue;
  CommandBufferRingStats command_buffer_ring;
};

}  // namespace mlxs
