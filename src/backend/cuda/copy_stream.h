// metal_optimizations.blit_queue: what goes to the GPU while weights are loaded goes on a stream of its own,
// one copy after another, beside the streams that pack what came. At most max_pending_ops are under way, the
// next caller waits. Thread-safe. Failures of the driver throw kInternal.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <deque>
#include <mutex>

#include "mlxs/metal_optimizations.h"

namespace mlxs::cuda {

class CopyStream {
 public:
  CopyStream(int device, const MetalOptimizations::BlitQueue& options);
  ~CopyStream();
  CopyStream(const CopyStream&) = delete;
  CopyStream& operator=(const CopyStream&) = delete;

  // from: pinned, and stays until it is copied; what is queued on `then` from now on finds it there.
  void upload(void* to, const void* from, std::size_t bytes, cudaStream_t then);
  void settle();  // all copies are done
  std::size_t staging_bytes() const {
    return static_cast<std::size_t>(options_.staging_buffer_size_mb) << 20;
  }
  BlitQueueStats stats() const;

 private:
  struct Copy {
    cudaEvent_t begin{}, end{};
    std::size_t bytes = 0;
  };
  void retire();  // the first

  const MetalOptimizations::BlitQueue options_;
  mutable std::mutex mutex_;
  cudaStream_t stream_{};
  std::deque<Copy> pending_;
  BlitQueueStats stats_;
};

}  // namespace mlxs::cuda
