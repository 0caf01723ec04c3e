// A weight on the GPU: the file's codes kept packed (4 or 8 bits in groups, or bf16), or a vector in f32.
// Packed by the host's threads into pinned memory, piece after piece, while the piece before is on its way.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/kernels.h"
#include "backend/ops.h"
#include "base/thread_pool.h"

namespace mlxs::cuda {

// What a tensor becomes. Types without a group are stored as bf16.
struct Packing {
  Codes codes = Codes::kBF16;
  int group_shift = 5;
  bool operator==(const Packing&) const = default;
};
Packing packing_of(const RawWeight& raw);
std::size_t row_bytes_of(const Packing& packing, std::int64_t columns);  // codes and scales

// Host to GPU by way of two pinned buffers.
class Uploader {
 public:
  explicit Uploader(cudaStream_t stream);
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;
  // A buffer of at least `bytes` that nothing reads any more; the next send() takes from it.
  std::byte* next(std::size_t bytes);
  void send(void* to, std::size_t offset, std::size_t bytes);
  void sent();  // the buffer may be taken again once its copies are done
  // Memory of the GPU for what is packed there. What was queued with it goes on, in order.
  std::byte* staging(std::size_t bytes);
  std::size_t staging_bytes() const { return staging_.bytes(); }
  void trim();  // gives it back
  cudaStream_t stream() const { return stream_; }

 private:
  struct Slot {
    PinnedBuffer buffer;
    std::byte* data = nullptr;
    cudaEvent_t done{};
  };
  cudaStream_t stream_;
  std::array<Slot, 2> slots_;
  int current_ = 0;
  DeviceBuffer staging_;
};

class CudaWeight final : public Weight {
 public:
  CudaWeight(ThreadPool& pool, Uploader& uploader, std::span<const RawWeight> parts, WeightUse use);

  // Consecutive rows of one packing; a stack of tensors of different types has several.
  std::span<const Rows> segments() const { return segments_; }
  std::span<const int> first_rows() const { return first_rows_; }
  // Kept by the first expert's weight: where those of its layer lie (ExpertWeight), made when they are first
  // used.
  DeviceBuffer& expert_table() const { return expert_table_; }
  const float* floats() const { return reinterpret_cast<const float*>(storage_.data()); }  // kVector

 private:
  void pack_vector(std::span<const RawWeight> parts, Uploader& uploader);
  // The rows of a part from the segment's row `first` on, packed by the GPU.
  void send_rows(ThreadPool& pool, Uploader& uploader, const RawWeight& part, std::int64_t first,
                 const Rows& segment) const;
  // parts: those that make up the segment, in order.
  void pack_segment(ThreadPool& pool, Uploader& uploader, std::span<const RawWeight> parts,
                    const Rows& segment) const;

  DeviceBuffer storage_;
  mutable DeviceBuffer expert_table_;
  std::vector<Rows> segments_;
  std::vector<int> first_rows_;
};

}  // namespace mlxs::cuda
