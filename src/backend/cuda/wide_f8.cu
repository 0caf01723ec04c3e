// Products of many rows (wide.cuh) for numbers of 8 bits.
#include "backend/cuda/wide.cuh"

namespace mlxs::cuda {

void wide_f8(cudaStream_t stream, const Wide& a, int rows, int splits) {
  choose_wide<Codes::kF8, Scaling::kFloats>(stream, a, rows, splits);
}

}  // namespace mlxs::cuda
