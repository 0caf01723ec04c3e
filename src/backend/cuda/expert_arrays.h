// What an order of rows by experts takes on the GPU, as one piece of memory is cut for it: who makes the
// order (route(), route_heads()) and who reads it agree by this. Host only.
#pragma once

#include <cstddef>

#include "backend/cuda/kernels.h"

namespace mlxs::cuda {

struct ExpertArrays {
  int *first, *turns, *alive, *active, *leading;  // as in ExpertRows

  static std::size_t ints(int count) { return static_cast<std::size_t>((4 + kTurnRows) * count + 3); }
  ExpertArrays(int* at, int count)
      : first(at),
        turns(first + count + 1),
        alive(turns + count + 1),
        active(alive + count + 1),
        leading(active + count) {}
};

}  // namespace mlxs::cuda
