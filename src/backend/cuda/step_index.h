// What the kernels need to know of a step's rows, sent to the GPU in one copy; and the rotations of a step,
// made once for all layers. Engine thread only; valid from begin_step to end_step.
#pragma once

#include <map>
#include <vector>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/kernels.h"
#include "backend/ops.h"

namespace mlxs::cuda {

class StepIndex {
 public:
  // For `rows` rows, of which those behind the batch's are padding, and sequences of up to `longest` tokens.
  // The previous step has ended on the stream. True if what rows() and the others point to has moved.
  bool begin(const Batch& batch, int rows, int longest, cudaStream_t stream);

  const StepRows& rows() const { return rows_; }
  const int* tokens() const { return tokens_; }
  const int* sampled() const { return sampled_; }
  Rotation rotation(const RopeSpec& rope, StepMemory& memory, cudaStream_t stream);

 private:
  PinnedBuffer staging_;
  DeviceBuffer device_;
  StepRows rows_;
  const int* tokens_ = nullptr;
  const int* sampled_ = nullptr;
  std::map<std::vector<float>, DeviceBuffer> frequencies_;      // few: one or two a model, kept
  std::map<std::pair<const std::byte*, float>, void*> tables_;  // of this step
};

}  // namespace mlxs::cuda
