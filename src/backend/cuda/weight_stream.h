// The way of weights to the GPU: threads that each read a piece into pinned memory of their own, send it, and
// queue what is to become of it on a stream of their own, while the piece before is on its way. The engine's
// thread adds pieces and goes on. Threads, buffers and streams are there from the first piece until finish().
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "backend/cuda/copy_stream.h"
#include "backend/cuda/device_memory.h"

namespace mlxs::cuda {

class WeightStream {
 public:
  // A thread's stream; copies go by another, if there is one for them.
  struct Queue {
    cudaStream_t stream{};
    CopyStream* copies = nullptr;
    void copy(void* to, const void* from, std::size_t bytes) const;
  };
  struct Piece {
    std::size_t bytes = 0;
    std::function<void(std::byte* pinned)> fill;  // on another thread; may throw Error
    // Queues copies from `pinned`; staging: as many bytes of the GPU's memory, this piece's until what is
    // queued now has run.
    std::function<void(const Queue& queue, const std::byte* pinned, std::byte* staging)> send;
  };

  // The pieces of one weight.
  class Batch {
   public:
    void wait_filled();  // what they read is needed no more
    // The weight is given up: nothing writes to what they name any more. That they failed is told to nobody.
    void settle();

   private:
    friend WeightStream;
    bool failed();
    std::mutex mutex_;
    std::condition_variable changed_;
    int unfilled_ = 0, unsent_ = 0;
    bool settled_ = false, given_up_ = false;
    std::exception_ptr failure_;  // the first; the pieces behind it are left out
  };

  // copies: outlives this; null: none.
  WeightStream(int device, int threads, CopyStream* copies);
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  std::shared_ptr<Batch> batch();
  void add(Batch& batch, Piece piece);  // batch: outlives the piece
  // Everything lies on the GPU, and the threads' memory is given back. Throws what went wrong with a weight
  // that is still wanted.
  void finish();
  std::size_t piece_bytes() const { return piece_bytes_; }  // of most pieces
  std::size_t staging_bytes() const;                        // of the GPU's memory, until finish()

 private:
  struct Waiting {
    Batch* batch;
    Piece piece;
  };
  void start_thread();
  void run(const DeviceBuffer& staging);
  void join();

  const int device_, most_threads_;
  CopyStream* const copies_;
  const std::size_t piece_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Waiting> waiting_;
  std::vector<std::shared_ptr<Batch>> batches_;
  std::vector<std::thread> threads_;
  int idle_ = 0;
  bool stopping_ = false;
  std::size_t bytes_ = 0;  // of all pieces
  std::chrono::steady_clock::time_point began_;
};

}  // namespace mlxs::cuda
