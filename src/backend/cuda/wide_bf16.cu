// Products of many rows (wide.cuh) for bf16 weights.
#include "backend/cuda/wide.cuh"

namespace mlxs::cuda {

void wide_bf16(cudaStream_t stream, const Wide& a, int rows, int splits) {
  choose_wide<Codes::kBF16, Scaling::kNone>(stream, a, rows, splits);
}

}  // namespace mlxs::cuda
