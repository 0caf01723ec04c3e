// Products of many rows (wide.cuh) for 8-bit codes.
#include "backend/cuda/wide.cuh"

namespace mlxs::cuda {

void wide_8(cudaStream_t stream, const Wide& a, int rows, int splits) {
  choose_wide_scaling<Codes::k8>(stream, a, rows, splits);
}

}  // namespace mlxs::cuda
