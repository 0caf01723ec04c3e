#include "backend/cuda/device_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "mlxs/error.h"

namespace mlxs::cuda {

void check(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  throw Error(status == cudaErrorMemoryAllocation ? ErrorCode::kOutOfMemory : ErrorCode::kInternal,
              fmt::format("CUDA, {}: {}", what, cudaGetErrorString(status)));
}

DeviceBuffer::DeviceBuffer(std::size_t bytes, std::string_view what) : bytes_(bytes) {
  if (cudaMalloc(&data_, std::max<std::size_t>(bytes, 1)) == cudaSuccess) return;
  cudaGetLastError();
  data_ = nullptr;
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  throw Error(ErrorCode::kOutOfMemory,
              fmt::format("{} needs {} MiB on the GPU; {} of {} MiB are free", what, (bytes >> 20) + 1,
                          free >> 20, total >> 20),
              "end other programs on this GPU, choose a smaller model, or lower kv_cache_bytes");
}

Event::Event() { check(cudaEventCreate(&event_), "an event"); }

std::byte* PinnedBuffer::reserve(std::size_t bytes) {
  if (bytes > bytes_) {
    cudaFreeHost(std::exchange(data_, nullptr));
    bytes_ = 0;
    check(cudaMallocHost(&data_, std::bit_ceil(bytes)), "pinned host memory");
    bytes_ = std::bit_ceil(bytes);
  }
  return static_cast<std::byte*>(data_);
}

void StepMemory::reset() {
  for (auto& [address, block] : used_) free_[block.bytes()].push_back(std::move(block));
  used_.clear();
}

void* StepMemory::allocate(std::size_t bytes) {
  // Four sizes a doubling: at most a fifth of a block is wasted.
  const std::size_t step = std::max<std::size_t>(4096, std::bit_floor(bytes) / 4);
  const std::size_t size = std::max<std::size_t>(step, (bytes + step - 1) / step * step);
  std::vector<DeviceBuffer>& same = free_[size];
  DeviceBuffer block;
  if (same.empty()) {
    const bool before = std::exchange(ran_out_, true);  // unless the next line returns
    block = DeviceBuffer(size, "a step's activations");
    ran_out_ = before;
  } else {
    block = std::move(same.back());
    same.pop_back();
  }
  void* address = block.data();
  used_.emplace(address, std::move(block));
  return address;
}

void StepMemory::trim() {
  free_.clear();
  ran_out_ = false;
}

void StepMemory::release(const void* block) {
  const auto found = used_.find(block);
  if (found == used_.end()) return;
  free_[found->second.bytes()].push_back(std::move(found->second));
  used_.erase(found);
}

}  // namespace mlxs::cuda
