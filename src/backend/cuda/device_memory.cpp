#include "backend/cuda/device_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <iterator>

#include "mlxs/error.h"

namespace mlxs::cuda {
namespace {

constexpr std::size_t kBlockAlign = 4096;  // of a step's tensors

}  // namespace

void check(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw Error(status == cudaErrorMemoryAllocation ? ErrorCode::kOutOfMemory : ErrorCode::kInternal,
              fmt::format("CUDA, {}: {}", what, cudaGetErrorString(status)));
}

void use_device(int device) { check(cudaSetDevice(device), fmt::format("device {}", device)); }

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

DeviceBuffer uploaded(std::span<const std::byte> bytes, std::string_view what) {
  DeviceBuffer made(bytes.size(), what);
  check(cudaMemcpy(made.data(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice), what);
  check(cudaStreamSynchronize(nullptr), what);
  return made;
}

Event::Event() { check(cudaEventCreate(&event_), "an event"); }

bool passed(cudaEvent_t event) {
  if (cudaEventQuery(event) == cudaSuccess) return true;
  cudaGetLastError();
  return false;
}

float elapsed_ms(cudaEvent_t begin, cudaEvent_t end) {
  float ms = 0;
  if (cudaEventElapsedTime(&ms, begin, end) == cudaSuccess) return ms;
  cudaGetLastError();
  return -1;
}

DeviceSlice DeviceArena::cut(std::size_t bytes, std::string_view what) {
  // Allocations grow with what was cut, so that little stays unused.
  constexpr std::size_t kAlign = 256, kLeast = std::size_t{1} << 20, kMost = std::size_t{256} << 20;
  const std::size_t size = (std::max<std::size_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
  cut_ += size;
  const std::size_t next = std::clamp(std::bit_floor(cut_ / 4), kLeast, kMost);
  if (now_ == nullptr || size > now_->bytes() - used_) {
    if (size > next / 2) {
      auto own = std::make_shared<DeviceBuffer>(size, what);
      std::byte* const data = own->data();
      return {std::move(own), data, bytes};
    }
    now_ = std::make_shared<DeviceBuffer>(next, what);
    used_ = 0;
  }
  std::byte* const data = now_->data() + used_;
  used_ += size;
  return {now_, data, bytes};
}

void DeviceArena::close() {
  now_.reset();
  cut_ = 0;
}

std::byte* PinnedBuffer::reserve(std::size_t bytes) {
  if (bytes > bytes_) {
    cudaFreeHost(std::exchange(data_, nullptr));
    bytes_ = 0;
    check(cudaMallocHost(&data_, std::bit_ceil(bytes)), "pinned host memory");
    bytes_ = std::bit_ceil(bytes);
  }
  return static_cast<std::byte*>(data_);
}

HeapPool::Memory heap_memory(cudaStream_t stream) {
  return {.allocate = [](std::size_t bytes) { return DeviceBuffer(bytes, "a step's activations").leave(); },
          .free = [](std::byte* data, std::size_t) { cudaFree(data); },
          .touch =
              [stream](std::byte* data, std::size_t bytes) {
                check(cudaMemsetAsync(data, 0, bytes, stream), "a step's activations");
              }};
}

void StepMemory::reset() {
  used_.clear();
  taken_ = 0;
  free_.clear();
  for (const Chunk& chunk : chunks_) free_.emplace(chunk.data, chunk.bytes);
}

// A quarter more than there is, at least, so that a step's memory is in few pieces.
void StepMemory::grow(std::size_t bytes) {
  const std::size_t wanted = chunks_.empty() ? first_chunk_ : bytes_ / 4;
  Chunk chunk{.bytes = std::max(bytes, wanted / kBlockAlign * kBlockAlign)};
  const auto take = [&] {
    // Behind its end there is room for who reads too far, and no other chunk.
    if (heaps_ == nullptr) {
      chunk.own = DeviceBuffer(chunk.bytes + kBlockAlign, "a step's activations");
      chunk.data = chunk.own.data();
    } else {
      chunk.heap = heaps_->acquire(bytes + kBlockAlign);
      chunk.data = chunk.heap.data;
      chunk.bytes = (chunk.heap.bytes - kBlockAlign) / kBlockAlign * kBlockAlign;
    }
  };
  try {
    take();
  } catch (const Error&) {
    if (chunk.bytes == bytes) throw;
    chunk.bytes = bytes;
    take();
  }
  free_.emplace(chunk.data, chunk.bytes);
  bytes_ += chunk.bytes;
  chunks_.push_back(std::move(chunk));
}

void* StepMemory::allocate(std::size_t bytes) {
  const std::size_t size = (std::max<std::size_t>(bytes, 1) + kBlockAlign - 1) / kBlockAlign * kBlockAlign;
  const auto smallest = [&] {
    auto best = free_.end();
    for (auto block = free_.begin(); block != free_.end(); ++block) {
      if (block->second >= size && (best == free_.end() || block->second < best->second)) best = block;
    }
    return best;
  };
  auto block = smallest();
  if (block == free_.end()) {
    const bool before = std::exchange(ran_out_, true);  // unless the next line returns
    grow(size);
    ran_out_ = before;
    block = smallest();
  }
  std::byte* const data = block->first;
  if (block->second > size) free_.emplace(data + size, block->second - size);
  free_.erase(block);
  used_.emplace(data, size);
  most_ = std::max(most_, taken_ += size);
  return data;
}

void StepMemory::release(const void* block) {
  const auto found = used_.find(block);
  if (found == used_.end()) return;
  auto* const data = static_cast<std::byte*>(const_cast<void*>(found->first));
  auto now = free_.emplace(data, found->second).first;
  taken_ -= found->second;
  used_.erase(found);
  if (const auto next = std::next(now); next != free_.end() && data + now->second == next->first) {
    now->second += next->second;
    free_.erase(next);
  }
  if (now == free_.begin()) return;
  if (const auto before = std::prev(now); before->first + before->second == data) {
    before->second += now->second;
    free_.erase(now);
  }
}

void StepMemory::trim() {
  reset();
  free_.clear();
  for (const Chunk& chunk : chunks_) {
    if (heaps_ != nullptr) heaps_->release(chunk.heap);
  }
  chunks_.clear();
  bytes_ = 0;
  first_chunk_ = ran_out_ || heaps_ != nullptr ? 0 : std::max(most_, first_chunk_) / 4 * 5;
  ran_out_ = false;
}

}  // namespace mlxs::cuda
