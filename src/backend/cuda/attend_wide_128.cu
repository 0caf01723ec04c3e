// Attention of prompts with heads of 128 dims (attend_wide.cuh).
#include "backend/cuda/attend_wide.cuh"

namespace mlxs::cuda {

void prompts_128(cudaStream_t stream, const Prompts& a, int multiprocessors) {
  choose_prompts<128, 128>(stream, a, multiprocessors);
}

}  // namespace mlxs::cuda
