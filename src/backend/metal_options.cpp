#include "backend/metal_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "base/log.h"

namespace mlxs {
namespace {

void check_range(std::string_view name, int value, int low, int high) {
  if (value >= low && value <= high) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("metal_optimizations.{} is {}, not {} … {}", name, value, low, high),
              "choose a value of that range", fmt::format("metal_optimizations.{}", name));
}

}  // namespace

void validate(const MetalOptimizations& options) {
  const auto& [pool, blit, ring] =
      std::tie(options.memory_pool, options.blit_queue, options.command_buffer_ring);
  check_range("memory_pool.max_heap_size_mb", pool.max_heap_size_mb, 256, 4096);
  check_range("memory_pool.min_heaps", pool.min_heaps, 1, 8);
  check_range("memory_pool.heap_size_mb", pool.heap_size_mb, 64, pool.max_heap_size_mb);
  check_range("memory_pool.num_heaps", pool.num_heaps, std::max(2, pool.min_heaps), 16);
  for (const int size : pool.warmup_sizes_mb)
    check_range("memory_pool.warmup_buffer_sizes_mb", size, 1, 4096);
  check_range("blit_queue.max_pending_ops", blit.max_pending_ops, 1, 64);
  check_range("blit_queue.staging_buffer_size_mb", blit.staging_buffer_size_mb, 1, 1024);
  check_range("blit_queue.queue_priority", blit.queue_priority, 0, 2);
  check_range("command_buffer_ring.ring_size", ring.ring_size, 2, 3);
  check_range("command_buffer_ring.timeout_ms", ring.timeout_ms, 0, 3'600'000);
  constexpr std::string_view kLevels[] = {"debug", "info", "warn", "error"};
  if (std::ranges::find(kLevels, options.fallback_log_level) == std::end(kLevels)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("metal_optimizations.fallback_log_level is '{}'", options.fallback_log_level),
                "one of: debug, info, warn, error", "metal_optimizations.fallback_log_level");
  }
}

void leave_out(const MetalOptimizations& options, std::string_view part, std::string_view reason) {
  const std::string message = fmt::format("metal_optimizations.{} is left out: {}", part, reason);
  if (!options.graceful_fallback) {
    throw Error(ErrorCode::kInvalidArgument, message,
                "switch it off, or set metal_optimizations.graceful_fallback",
                fmt::format("metal_optimizations.{}.enabled", part));
  }
  spdlog::log(spdlog::level::from_str(options.fallback_log_level), message);
}

}  // namespace mlxs
