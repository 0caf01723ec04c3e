#include "telemetry/device_families.h"

namespace mlxs {
namespace {

double number(auto value) { return static_cast<double>(value); }
double seconds(double ms) { return ms * 1e-3; }

void add_pool(FamilyBuilder& out, const MemoryPoolStats& pool) {
  out.counter("mlxs_pool_acquired_total", "Heaps that steps took from the memory pool.")
      .add({}, number(pool.total_acquired));
  out.counter("mlxs_pool_released_total", "Heaps that went back to it.").add({}, number(pool.total_released));
  out.counter("mlxs_pool_exhausted_total", "Times that no heap was free, or none large enough.")
      .add({}, number(pool.exhaustion_events));
  out.counter("mlxs_pool_fallbacks_total", "Times that memory was taken from the system instead.")
      .add({}, number(pool.fallback_events));
  out.gauge("mlxs_pool_heaps", "Heaps of the memory pool.");
  out.add({{"state", "free"}}, number(pool.available_count));
  out.add({{"state", "used"}}, number(pool.pool_size - pool.available_count));
}

void add_blit(FamilyBuilder& out, const BlitQueueStats& blit) {
  out.counter("mlxs_blit_copies_total", "Copies to the device.").add({}, number(blit.total_uploads));
  out.counter("mlxs_blit_seconds_total", "What they took.").add({}, seconds(blit.upload_ms));
  out.counter("mlxs_blit_uploaded_bytes_total", "Bytes that went to the device.")
      .add({}, number(blit.uploaded_bytes));
  out.counter("mlxs_blit_waits_total", "Waits for a copy that was not done.")
      .add({}, number(blit.sync_wait_count));
  out.counter("mlxs_blit_wait_seconds_total", "What these took.").add({}, seconds(blit.sync_wait_ms));
  out.gauge("mlxs_blit_overlap_ratio", "Share of the copies' time in which nobody waited for them.")
      .add({}, blit.overlap_ratio());
}

void add_ring(FamilyBuilder& out, const CommandBufferRingStats& ring) {
  out.counter("mlxs_ring_acquired_total", "Steps that took a place in the ring.")
      .add({}, number(ring.total_acquired));
  out.counter("mlxs_ring_waits_total", "Times that no place was free.").add({}, number(ring.wait_events));
  out.counter("mlxs_ring_timeouts_total", "Of these, in vain.").add({}, number(ring.timeout_events));
  out.gauge("mlxs_ring_places", "Places for steps that are under way at once.");
  out.add({{"state", "free"}}, number(ring.available_count));
  out.add({{"state", "used"}}, number(ring.ring_size - ring.available_count));
}

}  // namespace

void add_device_families(FamilyBuilder& out, const MetalOptimizationsStats& stats) {
  if (stats.memory_pool.enabled) add_pool(out, stats.memory_pool);
  if (stats.blit_queue.enabled) add_blit(out, stats.blit_queue);
  if (stats.command_buffer_ring.enabled) add_ring(out, stats.command_buffer_ring);
}

}  // namespace mlxs
