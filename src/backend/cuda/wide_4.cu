// Products of many rows (wide.cuh) for 4-bit codes.
#include "backend/cuda/wide.cuh"

namespace mlxs::cuda {

void wide_4(cudaStream_t stream, const Wide& a, int rows, int splits) {
  choose_wide_scaling<Codes::k4>(stream, a, rows, splits);
}

}  // namespace mlxs::cuda
