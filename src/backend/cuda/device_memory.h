// Memory of the GPU and pinned memory of the host, owned; and the activations of a step. Engine thread only.
// Failures throw Error: kOutOfMemory with the figures, kInternal for anything else that the driver reports.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <map>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mlxs::cuda {

// what: the thing that was being done, for the message.
void check(cudaError_t status, std::string_view what);

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

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

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

// Tensors of a step in blocks of a few sizes that stay allocated: after the first steps nothing is allocated
// any more. A block given back may be handed out at once, because everything runs on one stream.
class StepMemory {
 public:
  void reset();  // takes all blocks back
  void* allocate(std::size_t bytes);
  float* floats(std::size_t count) { return static_cast<float*>(allocate(count * sizeof(float))); }
  void release(const void* block);  // nullptr, or free already: nothing happens
  // allocate() found no memory since the last trim(): who retries should trim() first, after reset().
  bool ran_out() const { return ran_out_; }
  void note_ran_out() { ran_out_ = true; }
  void trim();  // gives back the blocks that are free, which nothing may refer to any more

 private:
  bool ran_out_ = false;
  std::map<std::size_t, std::vector<DeviceBuffer>> free_;
  std::unordered_map<const void*, DeviceBuffer> used_;
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
