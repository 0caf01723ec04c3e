// Attention of prompts with heads of 256 dims (attend_wide.cuh).
#include "backend/cuda/attend_wide.cuh"

namespace mlxs::cuda {

void prompts_256(cudaStream_t stream, const Prompts& a, int multiprocessors) {
  choose_prompts<256, 64>(stream, a, multiprocessors);
}

}  // namespace mlxs::cuda
