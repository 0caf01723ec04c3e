#include "cli/metal_flags.h"

namespace mlxs::cli {

void add_metal_flags(CLI::App& command, MetalOptimizations& options) {
  command.add_flag_callback(
      "--memory-pool", [&options] { options.enabled = options.memory_pool.enabled = true; },
      "Keep a step's memory in heaps that are reserved once (metal_optimizations.memory_pool)");
  command.add_flag_callback(
      "--blit-queue", [&options] { options.enabled = options.blit_queue.enabled = true; },
      "Copy weights to the device on a thread of its own (metal_optimizations.blit_queue)");
}

}  // namespace mlxs::cli
