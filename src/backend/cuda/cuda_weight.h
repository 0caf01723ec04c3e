// A weight on the GPU: the file's codes kept packed (4 or 8 bits in groups, FP8, bf16), or a vector in f32.
// Made at once; its bytes come by a WeightStream, whose finish() says that they are there. Most formats are
// packed by the GPU, the others by the stream's threads.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/weight_stream.h"
#include "backend/ops.h"

namespace mlxs::cuda {

// What a tensor becomes. Types without a group are stored as bf16.
struct Packing {
  Codes codes = Codes::kBF16;
  int group_shift = 5;
  bool operator==(const Packing&) const = default;
};
Packing packing_of(const RawWeight& raw);
std::size_t row_bytes_of(const Packing& packing, std::int64_t columns);  // codes and scales

class CudaWeight final : public Weight {
 public:
  // parts: what lies in mapped files stays there until finish(), or this weight's end; the rest is read when
  // this returns.
  CudaWeight(WeightStream& stream, DeviceArena& arena, std::span<const RawWeight> parts, WeightUse use);
  ~CudaWeight() override;

  // Consecutive rows of one packing; a stack of tensors of different types has several.
  std::span<const Rows> segments() const { return segments_; }
  std::span<const int> first_rows() const { return first_rows_; }
  // Kept by the first expert's weight: where those of its layer lie (ExpertWeight), made when they are first
  // used.
  DeviceBuffer& expert_table() const { return expert_table_; }
  const float* floats() const { return reinterpret_cast<const float*>(storage_.data); }  // kVector

 private:
  void send_matrix(WeightStream& stream, DeviceArena& arena, std::span<const RawWeight> parts,
                   const std::string& what);
  void send_vector(WeightStream& stream, std::span<const RawWeight> parts);
  // The rows of a part from the segment's row `first` on, packed by the GPU.
  void send_rows(WeightStream& stream, const RawWeight& part, std::int64_t first, const Rows& segment);
  // parts: those that make up the segment, in order.
  void send_segment(WeightStream& stream, std::span<const RawWeight> parts, const Rows& segment);
  void send_packed(WeightStream& stream, std::span<const RawWeight> parts, const Rows& segment);

  std::shared_ptr<WeightStream::Batch> batch_;
  DeviceSlice storage_;
  mutable DeviceBuffer expert_table_;
  std::vector<Rows> segments_;
  std::vector<int> first_rows_;
};

}  // namespace mlxs::cuda
