// One head of a row on its way from a product to attention: its norm and its rotation. A warp a head.
#pragma once

#include "backend/cuda/epilogue.cuh"

namespace mlxs::cuda {

// vector: of shared memory, `dims` floats, and the warp's own.
__device__ inline void turn_head(const float* from, int dims, bool normalizes, const Norm& norm,
                                 const Rotation& rotation, int row, float* vector) {
  const int lane = threadIdx.x % 32;
  for (int i = lane; i < dims; i += 32) vector[i] = from[i];
  __syncwarp();
  if (normalizes) {
    float squares = 0.0f;
    for (int i = lane; i < dims; i += 32) squares += vector[i] * vector[i];
    const float factor = rsqrtf(warp_sum(squares) / dims + norm.epsilon);
    for (int i = lane; i < dims; i += 32) vector[i] *= factor * (norm.gain[i] + norm.offset);
    __syncwarp();
  }
  const int half = rotation.dims / 2;
  const float2* turns = static_cast<const float2*>(rotation.table) + static_cast<size_t>(row) * half;
  for (int i = lane; i < half; i += 32) {
    const int a = rotation.interleaved ? 2 * i : i, b = rotation.interleaved ? 2 * i + 1 : i + half;
    const float2 turn = turns[i];
    const float x = vector[a], y = vector[b];
    vector[a] = x * turn.x - y * turn.y;
    vector[b] = x * turn.y + y * turn.x;
  }
  __syncwarp();
}

// The rotation alone, of 32 · kOwn dims whose turns are in registers: lane l has each 32nd from l on.
template <int kOwn>
__device__ inline void rotate_vector(const Rotation& rotation, const float2 (&turns)[kOwn / 2],
                                     float* vector) {
  const int lane = threadIdx.x % 32;
  const int half = rotation.dims / 2;
#pragma unroll
  for (int j = 0; j < kOwn / 2; ++j) {
    const int i = lane + 32 * j;
    if (i >= half) continue;
    const int a = rotation.interleaved ? 2 * i : i, b = rotation.interleaved ? 2 * i + 1 : i + half;
    const float x = vector[a], y = vector[b];
    vector[a] = x * turns[j].x - y * turns[j].y;
    vector[b] = x * turns[j].y + y * turns[j].x;
  }
  __syncwarp();
}

// The same for a head of 32 · kOwn dims that is in registers already, as its gains (offset included) and
// turns are: lane l has each 32nd from l on.
template <int kOwn>
__device__ inline void turn_head(const float (&from)[kOwn], bool normalizes, const float (&gains)[kOwn],
                                 float epsilon, const Rotation& rotation, const float2 (&turns)[kOwn / 2],
                                 float* vector) {
  const int lane = threadIdx.x % 32;
  float factor = 1.0f;
  if (normalizes) {
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) squares += from[i] * from[i];
    factor = rsqrtf(warp_sum(squares) / (32 * kOwn) + epsilon);
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) vector[lane + 32 * i] = normalizes ? from[i] * (factor * gains[i]) : from[i];
  __syncwarp();
  rotate_vector<kOwn>(rotation, turns, vector);
}

// Several sums over the warp side by side.
template <int kCount>
__device__ inline void warp_sums(float (&values)[kCount]) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
#pragma unroll
    for (float& value : values) value += __shfl_xor_sync(0xffffffffu, value, step);
  }
}

// What the norms of several heads and of one key scale them by, all side by side.
template <int kHeads, int kOwn>
__device__ inline void norm_factors(const float (&heads)[kHeads][kOwn], const float (&key)[kOwn],
                                    float epsilon, float key_epsilon, float (&factors)[kHeads + 1]) {
#pragma unroll
  for (int n = 0; n <= kHeads; ++n) {
    factors[n] = 0.0f;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const float value = n < kHeads ? heads[n < kHeads ? n : 0][i] : key[i];
      factors[n] += value * value;
    }
  }
  warp_sums(factors);
#pragma unroll
  for (int n = 0; n <= kHeads; ++n)
    factors[n] = rsqrtf(factors[n] / (32 * kOwn) + (n < kHeads ? epsilon : key_epsilon));
}

// The same in two parts, in registers.
template <int kOwn>
__device__ inline void scale_head(float (&own)[kOwn], float factor, const float (&gains)[kOwn]) {
#pragma unroll
  for (int i = 0; i < kOwn; ++i) own[i] *= factor * gains[i];
}
// vector: of shared memory, 32 · kOwn floats, and the warp's own.
template <int kOwn>
__device__ inline void rotate_head(float (&own)[kOwn], const Rotation& rotation,
                                   const float2 (&turns)[kOwn / 2], float* vector) {
  if (rotation.dims == 32 * kOwn && !rotation.interleaved) {  // a lane has both of each pair
#pragma unroll
    for (int j = 0; j < kOwn / 2; ++j) {
      const float x = own[j], y = own[j + kOwn / 2];
      own[j] = x * turns[j].x - y * turns[j].y;
      own[j + kOwn / 2] = x * turns[j].y + y * turns[j].x;
    }
    return;
  }
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) vector[lane + 32 * i] = own[i];
  __syncwarp();
  rotate_vector<kOwn>(rotation, turns, vector);
#pragma unroll
  for (int i = 0; i < kOwn; ++i) own[i] = vector[lane + 32 * i];
  __syncwarp();
}

}  // namespace mlxs::cuda
