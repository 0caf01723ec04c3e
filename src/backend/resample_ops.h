// Drawing once more from the logits of a step that has ended. A backend that keeps them in the host's memory
// is a ResampleOps, too; the engine asks by dynamic_cast. There a grammar's mask is computed only where the
// token that was drawn without it may not stand: such a backend computes on the host's cores, which wait for
// what follows a step, and so do masks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "backend/ops.h"

namespace mlxs {

class ResampleOps {
 public:
  virtual ~ResampleOps() = default;
  // How entry i is drawn, what that takes done first: on one of the backend's threads, several entries at
  // once. False: entry i is not drawn. Must not throw.
  using Spec = std::function<bool(std::size_t i, SampleRow& row)>;

  // Between end_step() and the next begin_step(): results[i] becomes what row rows[i] of the logits that
  // sample() had gives by spec, or stays. So does what end_step() returned.
  virtual void resample(Tensor logits, std::span<const std::int32_t> rows, const Spec& spec,
                        std::span<Sampled> results) = 0;
};

}  // namespace mlxs
