#include "telemetry/metal_metrics.h"

#include <fmt/format.h>

#include <iterator>

namespace mlxs {
namespace {

class Page {
 public:
  template <typename Number>
  void counter(std::string_view name, std::string_view help, Number value) {
    add(name, help, "counter");
    fmt::format_to(std::back_inserter(text_), "{} {}\n", name, value);
  }
  template <typename Number>
  void gauge(std::string_view name, std::string_view help, Number value) {
    add(name, help, "gauge");
    fmt::format_to(std::back_inserter(text_), "{} {}\n", name, value);
  }
  void summary(std::string_view name, std::string_view help, double sum, std::uint64_t count) {
    add(name, help, "summary");
    fmt::format_to(std::back_inserter(text_), "{0}_sum {1}\n{0}_count {2}\n", name, sum, count);
  }
  std::string text() && { return std::move(text_); }

 private:
  void add(std::string_view name, std::string_view help, std::string_view type) {
    fmt::format_to(std::back_inserter(text_), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
  }
  std::string text_;
};

}  // namespace

std::string metal_metrics(const MetalOptimizationsStats& stats) {
  Page page;
  if (const MemoryPoolStats& pool = stats.memory_pool; pool.enabled) {
    page.counter("metal_pool_acquired_total", "Heaps that steps took from the pool.", pool.total_acquired);
    page.counter("metal_pool_released_total", "Heaps that went back to it.", pool.total_released);
    page.counter("metal_pool_exhaustion_total", "Times that no heap was free, or none large enough.",
                 pool.exhaustion_events);
    page.counter("metal_pool_fallback_total", "Heaps' worth of memory taken from the system instead.",
                 pool.fallback_events);
    page.gauge("metal_pool_available", "Heaps that are free.", pool.available_count);
    page.gauge("metal_pool_utilization", "Share of the heaps that are not.", pool.utilization());
  }
  if (const BlitQueueStats& blit = stats.blit_queue; blit.enabled) {
    page.summary("blit_upload_duration_seconds", "Copies to the device.", blit.upload_ms / 1e3,
                 blit.total_uploads);
    page.summary("blit_download_duration_seconds", "Copies from the device.", blit.download_ms / 1e3,
                 blit.total_downloads);
    page.summary("blit_sync_wait_seconds", "Waits for a copy that was not done.", blit.sync_wait_ms / 1e3,
                 blit.sync_wait_count);
    page.gauge("blit_overlap_ratio", "Share of the copies' time in which nobody waited for them.",
               blit.overlap_ratio());
  }
  if (const CommandBufferRingStats& ring = stats.command_buffer_ring; ring.enabled) {
    page.counter("command_ring_acquired_total", "Steps that took a place.", ring.total_acquired);
    page.counter("command_ring_wait_total", "Times that no place was free.", ring.wait_events);
    page.counter("command_ring_timeout_total", "Of these, in vain.", ring.timeout_events);
    page.gauge("command_ring_available", "Places that are free.", ring.available_count);
    page.gauge("command_ring_size", "Places.", ring.ring_size);
  }
  return std::move(page).text();
}

}  // namespace mlxs
