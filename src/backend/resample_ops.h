// Drawing once more from the logits of a step that has ended. A backend that keeps them in the host's memory
// is a ResampleOps, too; the engine asks by dynamic_cast. There a grammar's mask is computed only where the
// token that was drawn without it may not stand: such a backend computes on the host's cores, and so do
// masks.
#pragma once

#include <cstdint>

#include "backend/ops.h"

namespace mlxs {

class ResampleOps {
 public:
  virtual ~ResampleOps() = default;
  // Between end_step() and the next begin_step(): what row `row` of the logits that sample() had gives by
  // `spec`. What end_step() returned stays as it is.
  virtual Sampled resample(Tensor logits, std::int32_t row, const SampleRow& spec) = 0;
};

}  // namespace mlxs
