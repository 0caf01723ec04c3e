// Products of many rows on Hopper's tensor cores (wgmma): a block's warpgroups have 64 outputs each and share
// a tile of rows. Rows of x and codes come through a ring in shared memory; codes go on to registers in the
// order in which the instruction's left operand wants them, where they become bf16 (bf16 weights go there at
// once: the ring would cost as much as the products). One unit's products run while the next unit's weights
// are unpacked and later ones are on their way. Outputs are the instruction's rows; a gated block's first
// half has gates, the second their ups. Included by wide_*.cu, one for each type of codes.
#pragma once

#include <algorithm>

#include "backend/cuda/codes.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/operand.cuh"
#include "backend/cuda/root_means.cuh"
#include "backend/cuda/wide_spec.cuh"

namespace mlxs::cuda {

#if defined(MLXS_HAS_WGMMA)

template <Codes kCodes, Scaling kScaling, int kTile, int kGroups>
__device__ void product(const Wide& a) {
  constexpr int kThreads = kGroups * 128, kOutputs = kGroups * 64, kWarps = kGroups * 4;
  constexpr int kRowsEach = kTile * 8 / kThreads, kApart = kThreads / 8;
  // A stage: the rows, then each warp's weights.
  constexpr int kCodeBytes = kUnitBytes<kCodes>, kScaleBytes = UnitScales<kScaling>::kBytes;
  constexpr int kStages = kWideStages<kCodes, kScaling, kTile, kGroups>;
  constexpr int kRowBytes = kTile * kDepth * 2, kOwnBytes = kRingBytes<kCodes, kScaling>;
  constexpr int kStageBytes = kWideRoom<kCodes, kScaling, kTile, kGroups>;
  static_assert(kStages >= 4 && kRowsEach >= 1);
  MLXS_DYNAMIC_SHARED(memory, 1024);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;

  const void* codes = a.w.codes;
  const void* scales = a.w.scales;
  const float* bias = a.f.bias;
  int begin = 0, rows = a.rows, tile = static_cast<int>(blockIdx.y);
  if (a.experts.table != nullptr) {
    await();
    int expert;
    if (!find_tile(a.experts, kTile, expert, tile)) return;
    const ExpertWeight own = a.experts.table[expert];
    codes = own.codes;
    scales = own.scales;
    bias = own.bias;
    begin = a.experts.first[expert];
    rows = a.experts.first[expert + 1] - begin;
  }
  const int from_row = tile * kTile;
  const int from_unit = static_cast<int>(blockIdx.z) * a.units, all_units = a.x.stride / kDepth;
  const int units = min(all_units - from_unit, a.units);

  // The warp's sixteen outputs: a tile of the weight.
  const int across = a.half > 0 ? kWarps / 2 : kWarps, last_tile = a.last / 16;
  const int own_tile = min(static_cast<int>(blockIdx.x) * across + warp % across, last_tile) +
                       (warp >= across ? a.half / 16 : 0);
  const size_t from = static_cast<size_t>(own_tile) * all_units + from_unit;
  const char* code_at = static_cast<const char*>(codes) + from * kCodeBytes + lane * 16;
  const char* scale_at = static_cast<const char*>(scales) + from * kScaleBytes + lane * 16;
  char* const own_ring = memory + kRowBytes + warp * kOwnBytes;
  // Of the outputs of a thread's, which are in one column.
  const int wide = a.half > 0 ? kOutputs / 2 : kOutputs;  // outputs of the block
  const int own_output = static_cast<int>(blockIdx.x) * wide + static_cast<int>(threadIdx.x) % wide;
  const float gain = own_output <= a.last ? gain_of(a.f, own_output) : 1.0f;
  const auto fetch_weights = [&](int unit, int stage) {
    if (kOwnBytes == 0 || unit >= units) return;
    char* to = own_ring + stage * kStageBytes;
    UnitCodes<kCodes>::copy(to + lane * 16, code_at + unit * kCodeBytes);
    if (lane < kScaleBytes / 16) copy16(to + kCodeBytes + lane * 16, scale_at + unit * kScaleBytes);
  };
  // A unit's left operands; its codes are here.
  int make_stage = 0;
  const auto make = [&](int unit, unsigned(&left)[4][4]) {
    if constexpr (kOwnBytes == 0) {
      const char* at = code_at + min(unit, units - 1) * kCodeBytes;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint4 four = stream_weights16(at + i * 512);
        left[i][0] = four.x;
        left[i][1] = four.y;
        left[i][2] = four.z;
        left[i][3] = four.w;
      }
    } else {
      if (unit >= units) return;
      const char* own = own_ring + make_stage * kStageBytes;
      make_stage = make_stage + 1 == kStages ? 0 : make_stage + 1;
      UnitCodes<kCodes> raw;
      UnitScales<kScaling> raw_scales;
      raw.take(own + lane * 16);
      raw_scales.take(own + kCodeBytes + UnitScales<kScaling>::lane_offset(lane));
      unpack(raw, raw_scales, left);
    }
  };
#pragma unroll
  for (int i = 0; i < kStages - 2; ++i) fetch_weights(i, i);
  if (a.experts.table == nullptr) await();

  // This thread copies 16 bytes of some rows of x, to where the swizzle of 128 bytes has them.
  const char* x_from[kRowsEach];
#pragma unroll
  for (int i = 0; i < kRowsEach; ++i) {
    const int place = begin + min(from_row + static_cast<int>(threadIdx.x) / 8 + i * kApart, rows - 1);
    const int row = a.experts.table != nullptr && a.experts.rows != nullptr ? a.experts.rows[place] : place;
    x_from[i] = static_cast<const char*>(a.x.data) +
                (static_cast<size_t>(row) * a.x.stride + from_unit * kDepth) * 2 + threadIdx.x % 8 * 16;
  }
  char* const x_to = memory + (threadIdx.x / 8) * 128 + ((threadIdx.x % 8) ^ (threadIdx.x / 8 % 8)) * 16;
  const auto fetch_rows = [&](int unit, int stage) {
    if (unit < units) {
#pragma unroll
      for (int i = 0; i < kRowsEach; ++i)
        copy16(x_to + stage * kStageBytes + i * kApart * 128, x_from[i] + unit * (kDepth * 2));
    }
    commit_copies();
  };
  int fetched = kStages - 2, fetch_stage = kStages - 2;
  const auto fetch = [&] {
    fetch_weights(fetched, fetch_stage);
    fetch_rows(fetched, fetch_stage);
    ++fetched;
    fetch_stage = fetch_stage + 1 == kStages ? 0 : fetch_stage + 1;
  };

  float sums[kTile / 2] = {};
  const unsigned ring = shared_address(memory);
  int stage = 0;
  const auto run = [&](const unsigned(&left)[4][4]) {
    begin_products();
#pragma unroll
    for (int step = 0; step < 4; ++step)
      multiply<kTile>(sums, left[step], swizzled(ring + stage * kStageBytes + step * 32));
    commit_products();
    stage = stage + 1 == kStages ? 0 : stage + 1;
  };
  // The oldest stage is here, for all threads and the tensor cores, and the next one's weights; and the
  // products of the unit before the last have ended in all warps, so that their stage may be filled again.
  const auto arrive = [&] {
    wait_copies<kStages - 4>();
    show_copies_to_products();
    __syncthreads();
  };
#pragma unroll
  for (int i = 0; i < kStages - 2; ++i) fetch_rows(i, i);
  __shared__ float factors[kTile];
  const bool lacks_means = a.means.squares != nullptr;
  if (lacks_means) read_factors(a.means, from_row, min(kTile, rows - from_row), factors);
  unsigned even[4][4], odd[4][4];
  wait_copies<kStages - 3>();
  __syncwarp();
  make(0, even);
#pragma unroll 1
  for (int unit = 0; unit < units; unit += 2) {
    arrive();
    run(even);
    fetch();
    wait_products<1>();  // those of `odd` have ended
    make(unit + 1, odd);
    if (unit + 1 >= units) break;
    arrive();
    run(odd);
    fetch();
    wait_products<1>();
    make(unit + 2, even);
  }
  wait_products<0>();
  wait_copies<0>();

  // Through the ring's memory, so that what follows a sum is there once, and neighbours write neighbours.
  auto* shared =
      reinterpret_cast<float*>(memory);  // [kTile][kOutputs], columns exchanged to spread over the banks
  __syncthreads();
#pragma unroll
  for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int row = n * 8 + t * 2 + c % 2, line = warp * 16 + g + c / 2 * 8;
      shared[row * kOutputs + (line ^ t * 8)] = sums[4 * n + c];
    }
  }
  __syncthreads();
  Finish f = a.f;
  if (f.y != nullptr) f.y += blockIdx.z * a.split_floats;
  // Blocks of a cluster share the columns, and here the outputs.
  int first_at = static_cast<int>(threadIdx.x), next_at = kThreads;
  const bool joins = a.split_floats == 0 && gridDim.z > 1;
#if defined(MLXS_HAS_CLUSTERS)
  if (joins) {
    sync_cluster();
    first_at += static_cast<int>(blockIdx.z) * kThreads;
    next_at *= static_cast<int>(gridDim.z);
  }
#endif
  const auto sum_of = [&](const float* own) {
#if defined(MLXS_HAS_CLUSTERS)
    if (joins) {
      float parts[kMostJoined], sum = 0.0f;
#pragma unroll
      for (unsigned i = 0; i < kMostJoined; ++i) parts[i] = i < gridDim.z ? read_cluster(own, i) : 0.0f;
#pragma unroll
      for (const float part : parts) sum += part;
      return sum;
    }
#endif
    return *own;
  };
  const int first_out = static_cast<int>(blockIdx.x) * wide, here = min(kTile, rows - from_row);
  if (a.in_eights && !joins) {
    const int across = min(wide, a.last + 1 - first_out) / 8;
    const int all = here * (wide / 8);
#pragma unroll 2
    for (int base = warp * 32; base < all; base += kThreads) {  // whole warps, as lanes exchange words
      const int at = min(base + lane, all - 1), row = at / (wide / 8);
      const int eight = min(at % (wide / 8), across - 1), to = a.first_column + first_out + eight * 8;
      const float* own = shared + row * kOutputs;
      const int swap = (row / 2 % 4) * 8;
      float v[8], up[8];
      read_eight(own + (eight * 8 ^ swap), v);
      const float by = lacks_means ? factors[row] : 1.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] *= by;
      if (bias != nullptr) {
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] += bias[to + i];
      }
      if (a.half > 0) {
        read_eight(own + (eight * 8 + kOutputs / 2 ^ swap), up);
#pragma unroll
        for (int i = 0; i < 8; ++i) up[i] *= by;
        if (bias != nullptr) {
#pragma unroll
          for (int i = 0; i < 8; ++i) up[i] += bias[to + a.half + i];
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = gate(v[i], up[i], f.act);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = activate(v[i], f.act);
      }
      store_eight(f, begin + from_row + row, to, v, base + lane < all && at % (wide / 8) < across);
    }
    return;
  }
  // Read one round ahead.
  const auto residual_at = [&](int at) {
    return at < here * wide && own_output <= a.last
               ? residual_of(f, begin + from_row + at / wide, a.first_column + own_output)
               : 0.0f;
  };
  float next_residual = residual_at(first_at);
#pragma unroll 1
  for (int at = first_at; at < here * wide; at += next_at) {
    // A warp has outputs of one row.
    const int row = at / wide, o = at % wide, out = own_output, to = a.first_column + out;
    const Ahead ahead{gain, next_residual};
    next_residual = residual_at(at + next_at);
    const float* sums_of = shared + row * kOutputs;
    const int swap = (row / 2 % 4) * 8;
    const float by = lacks_means ? factors[row] : 1.0f;
    float value = 0.0f;
    if (out > a.last) {
    } else if (a.half > 0) {
      float low = by * sum_of(sums_of + (o ^ swap)),
            up = by * sum_of(sums_of + ((o + kOutputs / 2) ^ swap));
      if (bias != nullptr) {
        low += bias[to];
        up += bias[to + a.half];
      }
      value = store(f, begin + from_row + row, to, gate(low, up, f.act), ahead);
    } else {
      const float sum = by * sum_of(sums_of + (o ^ swap)) + (bias != nullptr ? bias[to] : 0.0f);
      value = store(f, begin + from_row + row, to, activate(sum, f.act), ahead);
    }
    if (f.squares.parts != nullptr) {
      const float part = warp_sum(value * value);
      if (lane == 0 && out <= a.last)
        f.squares.parts[static_cast<size_t>(from_row + row) * f.squares.stride + out / 32] = part;
    }
  }
#if defined(MLXS_HAS_CLUSTERS)
  if (joins) sync_cluster();  // the others have read what is here
#endif
}

#endif

template <Codes kCodes, Scaling kScaling, int kTile, int kGroups>
__global__ __launch_bounds__(kGroups * 128,
                             kGroups == 2 ? 2 : 1) void wide_kernel(const __grid_constant__ Wide a) {
#if defined(MLXS_HAS_WGMMA)
  product<kCodes, kScaling, kTile, kGroups>(a);
#endif
}

template <Codes kCodes, Scaling kScaling, int kTile, int kGroups>
void start_wide(cudaStream_t stream, const Wide& a, int splits) {
  constexpr int kOutputs = kGroups * 64;
  const int wide = a.half > 0 ? kOutputs / 2 : kOutputs;
  const dim3 grid((a.last + 1 + wide - 1) / wide,
                  a.experts.table != nullptr
                      ? a.experts.places / kTile + min(a.experts.count, a.experts.places)
                      : (a.rows + kTile - 1) / kTile,
                  splits);
  constexpr int kRing = kWideStages<kCodes, kScaling, kTile, kGroups> *
                        kWideRoom<kCodes, kScaling, kTile, kGroups>,
                kSums = kTile * kOutputs * 4;
  constexpr int kBytes = kRing > kSums ? kRing : kSums;
  constexpr auto kKernel = wide_kernel<kCodes, kScaling, kTile, kGroups>;
  allow_shared<kKernel>(kBytes);
  launch_cluster(kKernel, a.split_floats == 0 ? splits : 1, grid, kGroups * 128, kBytes, stream, a);
}

template <Codes kCodes, Scaling kScaling>
void choose_wide(cudaStream_t stream, const Wide& a, int rows, int splits) {
  if (rows <= 32 && a.experts.table == nullptr) return start_wide<kCodes, kScaling, 32, 2>(stream, a, splits);
  if (rows <= 64) return start_wide<kCodes, kScaling, 64, 2>(stream, a, splits);
  start_wide<kCodes, kScaling, 128, 4>(stream, a, splits);
}

template <Codes kCodes>
void choose_wide_scaling(cudaStream_t stream, const Wide& a, int rows, int splits) {
  if (a.w.group_shift >= 6) return choose_wide<kCodes, Scaling::kUnits>(stream, a, rows, splits);
  if (a.w.group_shift == 5) return choose_wide<kCodes, Scaling::kHalves>(stream, a, rows, splits);
  choose_wide<kCodes, Scaling::kCodes>(stream, a, rows, splits);
}

// rows: of a weight, on average.
void wide_4(cudaStream_t stream, const Wide& a, int rows, int splits);
void wide_8(cudaStream_t stream, const Wide& a, int rows, int splits);
void wide_f8(cudaStream_t stream, const Wide& a, int rows, int splits);
void wide_bf16(cudaStream_t stream, const Wide& a, int rows, int splits);

}  // namespace mlxs::cuda
