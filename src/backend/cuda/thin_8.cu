// Products of a few rows (thin_start.cuh) for 8-bit codes.
#include "backend/cuda/thin_start.cuh"

namespace mlxs::cuda {

void thin_8(cudaStream_t stream, const Thin& a, int most_rows, int blocks, int multiprocessors) {
  choose_scaling<Codes::k8>(stream, a, most_rows, blocks, multiprocessors);
}

}  // namespace mlxs::cuda
