// Products of a few rows (thin_start.cuh) for 4-bit codes.
#include "backend/cuda/thin_start.cuh"

namespace mlxs::cuda {

void thin_4(cudaStream_t stream, const Thin& a, int most_rows, int blocks, int multiprocessors) {
  choose_scaling<Codes::k4>(stream, a, most_rows, blocks, multiprocessors);
}

}  // namespace mlxs::cuda
