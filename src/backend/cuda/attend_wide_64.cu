// Attention of prompts with heads of 64 dims (attend_wide.cuh).
#include "backend/cuda/attend_wide.cuh"

namespace mlxs::cuda {

void prompts_64(cudaStream_t stream, const Prompts& a, int multiprocessors) {
  choose_prompts<64, 128>(stream, a, multiprocessors);
}

}  // namespace mlxs::cuda
