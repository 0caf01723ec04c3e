// Places for steps that are under way at once (metal_optimizations.command_buffer_ring): each takes the next
// free one in turn and gives it back when it is done. Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "mlxs/metal_optimizations.h"

namespace mlxs {

class CommandRing {
 public:
  explicit CommandRing(const MetalOptimizations::CommandBufferRing& options);

  int acquire();            // waits for a place; throws kTimeout after timeout_ms, if there is one
  void release(int place);  // one that is free already: nothing happens
  void wait_all();          // until none is taken
  int size() const { return static_cast<int>(taken_.size()); }
  CommandBufferRingStats stats() const;
  void reset_stats();

 private:
  const MetalOptimizations::CommandBufferRing options_;
  mutable std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<bool> taken_;
  int next_ = 0, in_flight_ = 0;
  double wait_us_ = 0;  // together
  CommandBufferRingStats stats_;
};

}  // namespace mlxs
