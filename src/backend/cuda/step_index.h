// What the kernels need to know of a step's rows, sent to the GPU in one copy; and the rotations of a step,
// made once for all layers. Engine thread only; valid from begin_step to end_step.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "backend/cuda/adjust.h"
#include "backend/cuda/device_memory.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/sampling.h"
#include "backend/ops.h"

namespace mlxs::cuda {

class StepIndex {
 public:
  // For `rows` rows, of which those behind the batch's are padding, and sequences of up to `longest` tokens.
  // turn: 0 or 1; the step that had it before has ended, the other one may be under way. adjusted: all but
  // `first` set; their items are batch.sampling's. True if what rows() and the others point to has moved.
  bool begin(const Batch& batch, std::span<const Draw> draws, std::span<const Adjustment> adjusted, int rows,
             int longest, int turn, cudaStream_t stream);

  const StepRows& rows() const { return rows_; }
  const StepRows& window_rows() const { return window_rows_; }  // for layers with window pages
  int* tokens() const { return tokens_; }
  const int* fed() const { return fed_; }    // of the batch's rows; null: none is
  const int* turn() const { return turn_; }  // one number
  const int* sampled() const { return sampled_; }
  const Draw* draws() const { return draws_; }
  const Adjustments& adjustments() const { return adjustments_; }  // but for the masks
  Rotation rotation(const RopeSpec& rope, StepMemory& memory, cudaStream_t stream);

 private:
  PinnedBuffer staging_[2];
  DeviceBuffer device_;
  StepRows rows_, window_rows_;
  int* tokens_ = nullptr;
  const int *fed_ = nullptr, *turn_ = nullptr;
  const int* sampled_ = nullptr;
  const Draw* draws_ = nullptr;
  Adjustments adjustments_;
  std::map<std::vector<float>, DeviceBuffer> frequencies_;      // few: one or two a model, kept
  std::map<std::pair<const std::byte*, float>, void*> tables_;  // of this step
};

}  // namespace mlxs::cuda
