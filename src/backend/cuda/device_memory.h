// Memory of the GPU and of the host, pinned, owned: any thread. Arenas of weights and what a step works on:
// the engine's thread. Failures throw Error: kOutOfMemory with the figures, kInternal for anything else that
// the driver reports.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backend/heap_pool.h"

namespace mlxs::cuda {

// what: the thing that was being done, for the message. A failure that was told so, or by a function of this
// header, is no longer what cudaGetLastError() returns: end_step() asks it for launches that failed.
void check(cudaError_t status, std::string_view what);

// What this thread allocates and launches from now on is for that GPU; a thread begins with the first one.
void use_device(int device);

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(std::size_t bytes, std::string_view what);
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  std::byte* data() const { return static_cast<std::byte*>(data_); }
  std::size_t bytes() const { return bytes_; }
  std::byte* leave() { return static_cast<std::byte*>(std::exchange(data_, nullptr)); }  // for cudaFree()

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// The host's bytes on the GPU, there for every stream: cudaMemcpy() alone returns when pageable memory has
// been read, and streams as ours do not wait for the rest.
DeviceBuffer uploaded(std::span<const std::byte> bytes, std::string_view what);

// A moment of a stream.
class Event {
 public:
  Event();
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_{};
};
bool passed(cudaEvent_t event);
float elapsed_ms(cudaEvent_t begin, cudaEvent_t end);  // < 0: not known

// Memory for many things that live about as long as each other, cut from few allocations, which each cost
// some 0.1 ms and more. A slice keeps its allocation.
struct DeviceSlice {
  std::shared_ptr<DeviceBuffer> of;
  std::byte* data = nullptr;
  std::size_t bytes = 0;
};
class DeviceArena {
 public:
  DeviceSlice cut(std::size_t bytes, std::string_view what);  // what: as DeviceBuffer's
  void close();  // what is cut next begins an allocation of its own

 private:
  std::shared_ptr<DeviceBuffer> now_;
  std::size_t used_ = 0, cut_ = 0;  // of now_; of all since close()
};

class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  ~PinnedBuffer() { cudaFreeHost(data_); }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  // At least `bytes`; what it held is lost if it grows. Nothing may be on its way from or to it.
  std::byte* reserve(std::size_t bytes);

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

HeapPool::Memory heap_memory(cudaStream_t stream);

// Tensors of a step, cut from a few allocations that stay: after the first steps nothing is allocated any
// more, and steps of all sizes use the same memory. The same calls after reset() give the same addresses, as
// long as nothing is allocated. A block given back may be handed out at once, because everything runs on one
// stream.
class StepMemory {
 public:
  // heaps: of metal_optimizations.memory_pool, outlive this; null: memory of the GPU as it is needed.
  explicit StepMemory(HeapPool* heaps = nullptr) : heaps_(heaps) {}
  ~StepMemory() { trim(); }
  StepMemory(const StepMemory&) = delete;
  StepMemory& operator=(const StepMemory&) = delete;
  void reset();  // takes all blocks back
  void* allocate(std::size_t bytes);
  float* floats(std::size_t count) { return static_cast<float*>(allocate(count * sizeof(float))); }
  void release(const void* block);  // nullptr, or free already: nothing happens
  // Since the last trim() allocate() found no memory, or growing steps left much of it in pieces: after
  // reset(), who can should trim() first.
  bool wants_trim() const {
    return ran_out_ || (heaps_ == nullptr && bytes_ / 3 * 2 > std::max(most_, first_chunk_));
  }
  void note_ran_out() { ran_out_ = true; }
  void trim();  // gives everything back, to which nothing may refer any more

 private:
  struct Chunk {
    std::byte* data = nullptr;
    std::size_t bytes = 0;  // that are handed out
    DeviceBuffer own = {};
    HeapPool::Heap heap = {};
  };
  void grow(std::size_t bytes);

  HeapPool* heaps_;
  std::vector<Chunk> chunks_;
  std::map<std::byte*, std::size_t> free_;  // no two side by side
  std::unordered_map<const void*, std::size_t> used_;
  std::size_t bytes_ = 0;             // of chunks_
  std::size_t taken_ = 0, most_ = 0;  // now; at any time
  std::size_t first_chunk_ = 0;       // at least
  bool ran_out_ = false;
};

// A block that is given back at the end of the scope.
class Scratch {
 public:
  Scratch(StepMemory& memory, std::size_t bytes) : memory_(memory), data_(memory.allocate(bytes)) {}
  ~Scratch() { memory_.release(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* floats() const { return static_cast<float*>(data_); }
  void* data() const { return data_; }

 private:
  StepMemory& memory_;
  void* data_;
};

}  // namespace mlxs::cuda
