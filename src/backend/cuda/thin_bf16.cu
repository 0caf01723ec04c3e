// Products of a few rows (thin_start.cuh) for bf16 weights.
#include "backend/cuda/thin_start.cuh"

namespace mlxs::cuda {

void thin_bf16(cudaStream_t stream, const Thin& a, int most_rows, int blocks, int multiprocessors) {
  choose_thin<Codes::kBF16, Scaling::kNone>(stream, a, most_rows, blocks, multiprocessors);
}

}  // namespace mlxs::cuda
