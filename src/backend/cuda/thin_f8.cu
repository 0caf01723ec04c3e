// Products of a few rows (thin_start.cuh) for numbers of 8 bits.
#include "backend/cuda/thin_start.cuh"

namespace mlxs::cuda {

void thin_f8(cudaStream_t stream, const Thin& a, int most_rows, int blocks, int multiprocessors) {
  choose_thin<Codes::kF8, Scaling::kFloats>(stream, a, most_rows, blocks, multiprocessors);
}

}  // namespace mlxs::cuda
