// Copies between host and device memory beside what the caller does meanwhile
// (metal_optimizations.blit_queue): one thread copies in order of arrival, at most max_pending_ops wait, the
// next caller waits for a place. Thread-safe. Buffers must stay until their copy is done. The destructor
// waits for all of them.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <thread>

#include "mlxs/metal_optimizations.h"

namespace mlxs {

class CopyQueue {
 public:
  using Done = std::function<void(std::uint64_t id)>;  // on the queue's thread; must not throw

  explicit CopyQueue(const MetalOptimizations::BlitQueue& options);
  ~CopyQueue();
  CopyQueue(const CopyQueue&) = delete;
  CopyQueue& operator=(const CopyQueue&) = delete;

  // Ids count from 1. Throws kInvalidArgument: no memory, no bytes, or beyond the end of the device's buffer.
  std::uint64_t upload(std::span<const std::byte> from, std::span<std::byte> device, std::size_t offset = 0,
                       Done done = {});
  std::uint64_t download(std::span<const std::byte> device, std::size_t offset, std::span<std::byte> to,
                         Done done = {});

  // False: not within timeout_ms (0: however long), or there is no such copy.
  bool wait(std::uint64_t id, int timeout_ms = 0);
  bool completed(std::uint64_t id) const;
  void wait_all();

  std::size_t piece_bytes() const { return static_cast<std::size_t>(options_.staging_buffer_size_mb) << 20; }
  BlitQueueStats stats() const;
  void reset_stats();

 private:
  struct Copy {
    std::uint64_t id;
    const std::byte* from;
    std::byte* to;
    std::size_t bytes;
    bool upload;
    Done done;
  };
  std::uint64_t add(Copy copy);
  void run();

  const MetalOptimizations::BlitQueue options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Copy> pending_;  // the first is being copied
  std::uint64_t last_id_ = 0, last_done_ = 0;
  bool stopping_ = false;
  BlitQueueStats stats_;
  std::thread thread_;
};

}  // namespace mlxs
