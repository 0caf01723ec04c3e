// The op that only encoders need. A backend that runs them is an EncoderOps, too; a model that needs it asks
// by dynamic_cast at load, and is refused where there is none. The rules of ops.h hold.
#pragma once

#include <cstdint>
#include <span>

#include "backend/ops.h"

namespace mlxs {

class EncoderOps {
 public:
  virtual ~EncoderOps() = default;
  // Within a step, before add_positions(): the rows of the table of learned positions, one a row of the
  // batch. The span must outlive end_step.
  virtual void set_position_rows(std::span<const std::int32_t> rows) = 0;
  // x + those rows of the table; the result may reuse x's memory.
  virtual Tensor add_positions(Tensor x, const Weight& table) = 0;
};

}  // namespace mlxs
