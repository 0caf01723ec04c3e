// What the kernels of wide.cuh are told, their rings' sizes, and how a block's outputs leave it in eights.
#pragma once

#include <algorithm>

#include "backend/cuda/codes.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {

constexpr int kDepth = 64;
constexpr unsigned kMostJoined = 8;

// Of a unit's weights in the ring, a warp's.
template <Codes kCodes, Scaling kScaling>
constexpr int kRingBytes = kCodes == Codes::kBF16 ? 0 : kUnitBytes<kCodes> + UnitScales<kScaling>::kBytes;
// A stage of the ring, swizzled in 1,024 bytes.
template <Codes kCodes, Scaling kScaling, int kTile, int kGroups>
constexpr int kWideRoom =
    (kTile * kDepth * 2 + kGroups * 4 * kRingBytes<kCodes, kScaling> + 1023) / 1024 * 1024;
// As many as fit: two blocks of 128 outputs a multiprocessor, or one of 256.
template <Codes kCodes, Scaling kScaling, int kTile, int kGroups>
constexpr int kWideStages =
    std::min(8, (kGroups == 2 ? 110 : 216) * 1024 / kWideRoom<kCodes, kScaling, kTile, kGroups>);

struct Wide {
  Rows w;
  Operand x;
  RootMeans means;  // of x, without experts
  int rows;
  int first_column;
  int units;           // of 64 columns, in a split
  ExpertRows experts;  // table == nullptr: w alone, all rows
  Finish f;
  int half;             // gated: rows of the gates
  int last;             // the last output
  size_t split_floats;  // between the sums of two splits; 0: they are joined here
  bool in_eights;       // stores_eights()
};

// Whether a block's outputs go to f in whole eights, side by side: operands in pieces of 32 columns.
inline bool stores_eights(const Finish& f, int first_column, int outputs) {
  return f.soft_cap == 0 && f.gain == nullptr && f.columns % 8 == 0 && first_column % 32 == 0 && outputs % 32 == 0 &&
         (f.operand.data == nullptr || f.operand.wide);
}

#if defined(MLXS_HAS_WGMMA)

// Eight outputs of a row, to where f says, as store() does it; a warp together, whose fours of lanes have 32
// columns. live: there are such outputs.
__device__ inline void store_eight(const Finish& f, int row, int column, float (&v)[8], bool live) {
  const size_t at = static_cast<size_t>(row) * f.columns + column;
  if (live && f.residual != nullptr) {
    float old[8];
    read_eight(f.residual + at, old);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] += old[i];
  }
  if (live && f.y != nullptr) {
    auto* y = reinterpret_cast<float4*>(f.y + at);
    y[0] = {v[0], v[1], v[2], v[3]};
    y[1] = {v[4], v[5], v[6], v[7]};
  }
  if (f.operand.data == nullptr) return;
  const uint4 words = widely(pack_operand(v));
  if (!live) return;
  *reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(f.operand.data) +
                            static_cast<size_t>(row) * f.operand.stride + column) = words;
}

// Which expert, and which tile of its rows, a block of the grid's y is for; false: none.
__device__ inline bool find_tile(const ExpertRows& experts, int tile_rows, int& expert, int& tile) {
  __shared__ int found[2];
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x), wanted = static_cast<int>(blockIdx.y);
    int before = 0;
    if (lane == 0) found[0] = -1;
    __syncwarp();
    for (int base = 0; base < experts.count && before <= wanted; base += 32) {
      const int e = base + lane;
      const int own =
          e < experts.count ? (experts.first[e + 1] - experts.first[e] + tile_rows - 1) / tile_rows : 0;
      int sum = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int lower = __shfl_up_sync(0xffffffffu, sum, step);
        if (lane >= step) sum += lower;
      }
      const int from = before + sum - own;
      if (wanted >= from && wanted < from + own) {
        found[0] = e;
        found[1] = wanted - from;
      }
      before += __shfl_sync(0xffffffffu, sum, 31);
    }
  }
  __syncthreads();
  expert = found[0];
  tile = found[1];
  return expert >= 0;
}

#endif

}  // namespace mlxs::cuda
