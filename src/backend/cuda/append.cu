// Before attention: the per-head norms, the rotation, and the new keys and values into their pages.
#include "backend/cuda/head.cuh"
#include "backend/cuda/kv_codes.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kPage = 16;  // tokens of a page (kPageTokens)
constexpr int kMaxDim = 576;

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

__device__ inline float value_of(float x) { return x; }
__device__ inline float value_of(__nv_bfloat16 x) { return __bfloat162float(x); }

// Any heads: a warp has one of a row, queries first, then keys, then values.
template <class Element>
__global__ __launch_bounds__(128) void append_kernel(const __grid_constant__ Qkv qkv,
                                                     const __grid_constant__ StepRows step,
                                                     const __grid_constant__ Attention spec,
                                                     const __grid_constant__ KvLayer kv, float* q) {
  __shared__ float vectors[4][kMaxDim];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int head = static_cast<int>(blockIdx.x) * 4 + warp, row = static_cast<int>(blockIdx.y);
  await();
  if (head >= spec.heads + 2 * kv.kv_heads) return;
  const int query_columns = spec.heads * kv.key_dim, key_columns = kv.kv_heads * kv.key_dim;
  const int position = step.positions[row], first_page = step.first_page[row];
  const bool is_query = head < spec.heads, is_value = head >= spec.heads + kv.kv_heads;
  const int own = is_value ? head - spec.heads - kv.kv_heads : head - spec.heads;
  const int column = is_value ? query_columns + key_columns + own * kv.value_dim : head * kv.key_dim;
  const auto* from = static_cast<const Element*>(qkv.data) +
                     static_cast<size_t>(row) * (query_columns + key_columns + kv.kv_heads * kv.value_dim) +
                     column;
  float* vector = vectors[warp];
  const int dims = is_value ? kv.value_dim : kv.key_dim;
  for (int i = lane; i < dims; i += 32)
    vector[i] = value_of(from[i]) + (qkv.bias != nullptr ? qkv.bias[column + i] : 0.0f);
  __syncwarp();
  if (!is_value) {
    turn_head(vector, kv.key_dim, is_query ? spec.norm_query : spec.norm_key,
              is_query ? spec.query_norm : spec.key_norm, spec.rotation, row, vector);
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
    store_head(vector, kv.value_dim, kv.values, kv.value_scales, slot);
  } else {
    store_head(vector, kv.key_dim, kv.keys, kv.key_scales, slot);
  }
}

// Heads of kDims, keys' and values' alike: a lane has eight dims, several lanes a head, and a warp kEach
// turns of heads side by side, all read before any is used. Eights of columns turn as one (turns_in_eights).
constexpr int kEach = 4;

template <int kDims>
constexpr int kWarpHeads = 32 / (kDims / 8) * kEach;

template <int kLanes>
__device__ inline float head_sum(float value) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// Eight of a head's dims to its slot; all lanes of the head together.
template <int kLanes>
__device__ inline void store_eight(const float (&v)[8], int own, void* pages, float* scales, size_t slot,
                                   bool live) {
  if (scales == nullptr) {
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 two = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
      words[i] = *reinterpret_cast<const unsigned*>(&two);
    }
    if (live) reinterpret_cast<uint4*>(pages)[slot * kLanes + own] = {words[0], words[1], words[2], words[3]};
    return;
  }
  unsigned largest = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) largest = max(largest, magnitude(v[i]));
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2)
    largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  const float scale = scale_of(largest), inverse = inverse_scale(scale);
  if (!live) return;
  if (own == 0) scales[slot] = scale;
  unsigned codes[2] = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    codes[i / 4] |= static_cast<unsigned>(static_cast<unsigned char>(kv_element<true>(v[i], inverse)))
                    << i % 4 * 8;
  }
  reinterpret_cast<uint2*>(pages)[slot * kLanes + own] = {codes[0], codes[1]};
}

template <int kDims, class Element>
__global__ __launch_bounds__(128) void append_heads_kernel(const __grid_constant__ Qkv qkv,
                                                           const __grid_constant__ StepRows step,
                                                           const __grid_constant__ Attention spec,
                                                           const __grid_constant__ KvLayer kv, float* q) {
  constexpr int kLanes = kDims / 8, kAtOnce = 32 / kLanes;
  const int lane = threadIdx.x % 32, own = lane % kLanes, first_dim = own * 8;
  const int heads = spec.heads + 2 * kv.kv_heads, of_row = (heads + kAtOnce * kEach - 1) / (kAtOnce * kEach);
  const int warp = static_cast<int>(blockIdx.x * 4 + threadIdx.x / 32), row = warp / of_row;
  await();
  if (row >= step.rows) return;
  const int first = warp % of_row * (kAtOnce * kEach) + lane / kLanes;
  const auto* from =
      static_cast<const Element*>(qkv.data) + static_cast<size_t>(row) * heads * kDims + first_dim;
  constexpr bool kShort = sizeof(Element) == 2;
  uint4 raw[kEach][kShort ? 1 : 2];
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const int head = min(first + j * kAtOnce, heads - 1);
#pragma unroll
    for (int i = 0; i < (kShort ? 1 : 2); ++i)
      raw[j][i] = stream16(reinterpret_cast<const uint4*>(from + head * kDims) + i);
  }
  const int position = step.positions[row];
  const size_t page = step.pages[step.first_page[row] + max(position, 0) / kPage];
  // Where the other one of each pair is, and what turns them.
  const int half = spec.rotation.dims / 2;
  const bool interleaved = spec.rotation.interleaved, turns = first_dim < 2 * half,
             is_first = first_dim < half;
  const int other = !turns || interleaved ? lane : is_first ? lane + half / 8 : lane - half / 8;
  float2 turn[8];
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    float4 two = {1.0f, 0.0f, 1.0f, 0.0f};
    if (turns && (i < 4 || !interleaved)) {
      two = *reinterpret_cast<const float4*>(static_cast<const float2*>(spec.rotation.table) +
                                             static_cast<size_t>(row) * half +
                                             (interleaved ? first_dim / 2
                                              : is_first  ? first_dim
                                                          : first_dim - half) +
                                             i);
    }
    turn[i] = {two.x, two.y};
    turn[i + 1] = {two.z, two.w};
  }
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const int head = first + j * kAtOnce;
    const bool is_query = head < spec.heads, is_value = head >= spec.heads + kv.kv_heads;
    float v[8];
    if constexpr (kShort) {
      open_pairs(raw[j][0], v);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint4& four = raw[j][i / 4];
        v[i] = __uint_as_float(i % 4 == 0 ? four.x : i % 4 == 1 ? four.y : i % 4 == 2 ? four.z : four.w);
      }
    }
    if (qkv.bias != nullptr) {
      float bias[8];
      read_eight(qkv.bias + min(head, heads - 1) * kDims + first_dim, bias);
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] += bias[i];
    }
    if (spec.norm_query || spec.norm_key) {
      float squares = 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) squares += v[i] * v[i];
      squares = head_sum<kLanes>(squares);
      const Norm& norm = is_query ? spec.query_norm : spec.key_norm;
      if (!is_value && (is_query ? spec.norm_query : spec.norm_key)) {
        const float factor = rsqrtf(squares / kDims + norm.epsilon);
        float gain[8];
        read_eight(norm.gain + first_dim, gain);
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] *= factor * (gain[i] + norm.offset);
      }
    }
    if (interleaved) {
      if (!is_value) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float a = v[2 * i], b = v[2 * i + 1];
          v[2 * i] = a * turn[i].x - b * turn[i].y;
          v[2 * i + 1] = a * turn[i].y + b * turn[i].x;
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float pair = __shfl_sync(0xffffffffu, v[i], other);
        if (!is_value) v[i] = v[i] * turn[i].x + (is_first ? -pair : pair) * turn[i].y;
      }
    }
    const bool live = head < heads && position >= 0;
    const int kv_head = max(0, is_value ? head - spec.heads - kv.kv_heads : head - spec.heads);
    const size_t slot = (page * kv.kv_heads + kv_head) * kPage + max(position, 0) % kPage;
    store_eight<kLanes>(v, own, is_value ? kv.values : kv.keys, is_value ? kv.value_scales : kv.key_scales,
                        slot, live && !is_query);
    if (live && is_query) {
      auto* to =
          reinterpret_cast<float4*>(q + (static_cast<size_t>(row) * spec.heads + head) * kDims + first_dim);
      to[0] = {v[0], v[1], v[2], v[3]};
      to[1] = {v[4], v[5], v[6], v[7]};
    }
  }
}

bool turns_in_eights(const Rotation& rotation) {
  return rotation.dims % (rotation.interleaved ? 8 : 16) == 0;
}

template <class Element>
void start(cudaStream_t stream, const Qkv& qkv, const StepRows& step, const Attention& spec,
           const KvLayer& kv, float* q) {
  const int heads = spec.heads + 2 * kv.kv_heads;
  const auto run = [&](auto kernel, int warp_heads) {
    const int warps = step.rows * ((heads + warp_heads - 1) / warp_heads);
    launch_early(kernel, dim3((warps + 3) / 4), 128, 0, stream, qkv, step, spec, kv, q);
  };
  if (kv.key_dim == kv.value_dim && turns_in_eights(spec.rotation)) {
    if (kv.key_dim == 64) return run(append_heads_kernel<64, Element>, kWarpHeads<64>);
    if (kv.key_dim == 128) return run(append_heads_kernel<128, Element>, kWarpHeads<128>);
    if (kv.key_dim == 256) return run(append_heads_kernel<256, Element>, kWarpHeads<256>);
  }
  launch_early(append_kernel<Element>, dim3((heads + 3) / 4, step.rows), 128, 0, stream, qkv, step, spec, kv,
               q);
}

}  // namespace

void make_rotation(cudaStream_t stream, const int* positions, const float* frequencies, int rows, int dims,
                   float magnitude, void* table) {
  launch_early(rotation_kernel, dim3(rows), 64, 0, stream, positions, frequencies, dims / 2, magnitude,
               static_cast<float2*>(table));
}

void append(cudaStream_t stream, const Qkv& qkv, const StepRows& step, const Attention& spec,
            const KvLayer& kv, float* q) {
  if (qkv.bf16) return start<__nv_bfloat16>(stream, qkv, step, spec, kv, q);
  start<float>(stream, qkv, step, spec, kv, q);
}

}  // namespace mlxs::cuda
