// Attention of prompts on Hopper: which heads it takes, and how they share a block (attend_wide.cuh).
#include "backend/cuda/attend_wide.cuh"

namespace mlxs::cuda {

bool attends_wide(const KvLayer& kv) {
  return kv.key_dim == kv.value_dim && (kv.key_dim == 64 || kv.key_dim == 128 || kv.key_dim == 256);
}

void attend_wide(cudaStream_t stream, const float* q, const StepRows& step, const Attention& spec,
                 const KvLayer& kv, float* y, const Operand& operand, int multiprocessors) {
  const int group = spec.heads / kv.kv_heads;
  Prompts a{};
  if (kv.key_scales == nullptr) {
    const auto count = static_cast<size_t>(kv.pages) * static_cast<size_t>(kv.kv_heads);
    a.keys = map_pages(kv.keys, count, kv.key_dim);
    a.values = map_pages(kv.values, count, kv.value_dim);
  }
  a.q = q;
  a.step = step;
  a.spec = spec;
  a.kv = kv;
  a.head_shift = group % 8 == 0 ? 3 : group % 4 == 0 ? 2 : group % 2 == 0 ? 1 : 0;
  a.y = y;
  a.operand = operand;
  const auto run = kv.key_dim == 64 ? prompts_64 : kv.key_dim == 128 ? prompts_128 : prompts_256;
  run(stream, a, multiprocessors);
}

}  // namespace mlxs::cuda
