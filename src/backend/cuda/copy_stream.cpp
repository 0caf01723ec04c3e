#include "backend/cuda/copy_stream.h"

#include <algorithm>
#include <chrono>

#include "backend/cuda/device_memory.h"
#include "base/log.h"

namespace mlxs::cuda {

CopyStream::CopyStream(int device, const MetalOptimizations::BlitQueue& options) : options_(options) {
  use_device(device);
  int least = 0, greatest = 0;
  check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "the copy stream");
  const int priority = options.queue_priority == 0   ? least
                       : options.queue_priority == 2 ? greatest
                                                     : (least + greatest) / 2;
  check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, priority), "the copy stream");
  stats_.enabled = true;
}

CopyStream::~CopyStream() {
  cudaStreamSynchronize(stream_);
  for (const Copy& copy : pending_) {
    cudaEventDestroy(copy.begin);
    cudaEventDestroy(copy.end);
  }
  cudaStreamDestroy(stream_);
}

void CopyStream::retire() {
  const Copy copy = pending_.front();
  pending_.pop_front();
  double waited_ms = 0;
  if (!passed(copy.end)) {
    const auto since = std::chrono::steady_clock::now();
    cudaEventSynchronize(copy.end);
    waited_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - since).count();
    ++stats_.sync_wait_count;
  }
  const float took_ms = std::max(0.0f, elapsed_ms(copy.begin, copy.end));
  cudaEventDestroy(copy.begin);
  cudaEventDestroy(copy.end);
  if (options_.verbose_logging) log::debug("blit queue: {} bytes in {:.3f} ms", copy.bytes, took_ms);
  if (!options_.track_metrics) {
    stats_ = {.enabled = true};
    return;
  }
  ++stats_.total_uploads;
  stats_.uploaded_bytes += copy.bytes;
  stats_.upload_ms += took_ms;
  stats_.sync_wait_ms += waited_ms;
  stats_.total_overlap_ms += std::max(0.0, took_ms - waited_ms);
}

void CopyStream::upload(void* to, const void* from, std::size_t bytes, cudaStream_t then) {
  const std::lock_guard lock(mutex_);
  while (pending_.size() >= static_cast<std::size_t>(options_.max_pending_ops)) retire();
  Copy& copy = pending_.emplace_back();
  copy.bytes = bytes;
  check(cudaEventCreate(&copy.begin), "the copy stream");
  check(cudaEventCreate(&copy.end), "the copy stream");
  check(cudaEventRecord(copy.begin, stream_), "the copy stream");
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "the copy stream");
  check(cudaEventRecord(copy.end, stream_), "the copy stream");
  check(cudaStreamWaitEvent(then, copy.end, 0), "the copy stream");
  if (!options_.use_shared_events) retire();
}

void CopyStream::settle() {
  const std::lock_guard lock(mutex_);
  while (!pending_.empty()) retire();
}

BlitQueueStats CopyStream::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace mlxs::cuda
