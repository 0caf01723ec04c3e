// Before attention: the per-head norms, the rotation, and the new keys and values into their pages.
#include "backend/cuda/head.cuh"
#include "backend/cuda/kv_codes.cuh"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kPage = 16;  // tokens of a page (kPageTokens)
constexpr int kMaxDim = 256;

__global__ void rotation_kernel(const int* positions, const float* frequencies, int half, float magnitude,
                                float2* table) {
  await();
  for (int i = static_cast<int>(threadIdx.x); i < half; i += static_cast<int>(blockDim.x)) {
    double sine, cosine;  // f32 loses the angle at long positions
    sincos(static_cast<double>(positions[blockIdx.x]) * static_cast<double>(frequencies[i]), &sine, &cosine);
    table[static_cast<size_t>(blockIdx.x) * half + i] = {static_cast<float>(cosine) * magnitude,
                                                         static_cast<float>(sine) * magnitude};
  }
}

// One warp a head of a row: queries first, then keys, then values. kOwn: of 32 · kOwn dims, all read before
// any is used; 0: any number.
template <int kOwn>
__global__ __launch_bounds__(128) void append_kernel(const float* __restrict__ qkv,
                                                     const __grid_constant__ StepRows step,
                                                     const __grid_constant__ Attention spec,
                                                     const __grid_constant__ KvLayer kv, float* q) {
  __shared__ float vectors[4][kMaxDim];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int head = static_cast<int>(blockIdx.x) * 4 + warp, row = static_cast<int>(blockIdx.y);
  await();
  if (head >= spec.heads + 2 * kv.kv_heads) return;
  const int query_columns = spec.heads * kv.key_dim, key_columns = kv.kv_heads * kv.key_dim;
  const float* from =
      qkv + static_cast<size_t>(row) * (query_columns + key_columns + kv.kv_heads * kv.value_dim);
  const int position = step.positions[row], first_page = step.first_page[row];
  const bool is_query = head < spec.heads, is_value = head >= spec.heads + kv.kv_heads;
  const int own = is_value ? head - spec.heads - kv.kv_heads : head - spec.heads;
  from += is_value ? query_columns + key_columns + own * kv.value_dim : head * kv.key_dim;
  float* vector = vectors[warp];
  const bool normalizes = is_query ? spec.norm_query : spec.norm_key;
  const Norm& norm = is_query ? spec.query_norm : spec.key_norm;
  if constexpr (kOwn > 0) {
    if (!is_value) {
      float raw[kOwn], gains[kOwn];
      float2 turns[kOwn / 2];
      const int half = spec.rotation.dims / 2;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        raw[i] = from[lane + 32 * i];
        gains[i] = normalizes ? norm.gain[lane + 32 * i] + norm.offset : 1.0f;
      }
#pragma unroll
      for (int i = 0; i < kOwn / 2; ++i) {
        turns[i] = {1.0f, 0.0f};
        if (lane + 32 * i < half)
          turns[i] = static_cast<const float2*>(
              spec.rotation.table)[static_cast<size_t>(row) * half + lane + 32 * i];
      }
      turn_head<kOwn>(raw, normalizes, gains, norm.epsilon, spec.rotation, turns, vector);
    }
  } else if (!is_value) {
    turn_head(from, kv.key_dim, normalizes, norm, spec.rotation, row, vector);
  }
  if (position < 0) return;
  if (is_query) {
    float* to = q + static_cast<size_t>(row) * query_columns + head * kv.key_dim;
    for (int i = lane; i < kv.key_dim; i += 32) to[i] = vector[i];
    return;
  }
  const size_t page = step.pages[first_page + position / kPage];
  const size_t slot = (page * kv.kv_heads + own) * kPage + position % kPage;
  if (is_value) {
    store_head(from, kv.value_dim, kv.values, kv.value_scales, slot);
  } else {
    store_head(vector, kv.key_dim, kv.keys, kv.key_scales, slot);
  }
}

}  // namespace

void make_rotation(cudaStream_t stream, const int* positions, const float* frequencies, int rows, int dims,
                   float magnitude, void* table) {
  launch_early(rotation_kernel, dim3(rows), 64, 0, stream, positions, frequencies, dims / 2, magnitude,
               static_cast<float2*>(table));
}

void append(cudaStream_t stream, const float* qkv, const StepRows& step, const Attention& spec,
            const KvLayer& kv, float* q) {
  const dim3 grid((spec.heads + 2 * kv.kv_heads + 3) / 4, step.rows);
  const auto kernel = kv.key_dim == 64    ? append_kernel<2>
                      : kv.key_dim == 128 ? append_kernel<4>
                      : kv.key_dim == 256 ? append_kernel<8>
                                          : append_kernel<0>;
  launch_early(kernel, grid, 128, 0, stream, qkv, step, spec, kv, q);
}

}  // namespace mlxs::cuda
