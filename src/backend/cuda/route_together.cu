// Which experts each row goes to, and the rows of every expert side by side, of a step of few rows: one warp
// a row, in blocks that count the experts' rows in the first one's shared memory (a cluster, or one block).
// Who is counted is told how many were before, so that places follow from where each expert begins.
#include <algorithm>

#include "backend/cuda/launch.cuh"
#include "backend/cuda/route.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kMostBlocks = 8,
              kBlockRows = 4;   // of a cluster; and of a block, until there are so many blocks
constexpr int kMostWarps = 32;  // of one block

// One warp, given each expert's rows: where they begin, to `first` too.
template <class Counts>
__device__ void order_experts(const Route& spec, const Counts& count_of, int* first, const Routed& to,
                              bool writes, int lane) {
  constexpr int kAtOnce = 4;
  int many_all = 0;
  for (int base = 0; base < spec.experts; base += 32 * kAtOnce) {
    int own[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int e = base + 32 * i + lane;
      own[i] = e < spec.experts ? count_of(e) : 0;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) many_all += __popc(__ballot_sync(0xffffffffu, own[i] > kTurnRows));
  }
  const unsigned below = (1u << lane) - 1;
  int rows = 0, turns = 0, many = 0, few = many_all;
  for (int base = 0; base < spec.experts; base += 32 * kAtOnce) {
    int own[kAtOnce], sums[kAtOnce], all[kAtOnce];  // rows, and turns above them
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int e = base + 32 * i + lane;
      own[i] = e < spec.experts ? count_of(e) : 0;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      sums[i] = sum_below((own[i] + kTurnRows - 1) / kTurnRows << 16 | own[i], lane, all[i]);
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int e = base + 32 * i + lane;
      const unsigned are_many = __ballot_sync(0xffffffffu, own[i] > kTurnRows),
                     are_few = __ballot_sync(0xffffffffu, own[i] > 0 && own[i] <= kTurnRows);
      if (e < spec.experts) {
        first[e] = rows + (sums[i] & 0xffff);
        if (writes) {
          to.first[e] = rows + (sums[i] & 0xffff);
          to.turns[e] = turns + (sums[i] >> 16);
          to.alive[e] = many + few - many_all + __popc((are_many | are_few) & below);
          if (own[i] > kTurnRows) to.active[many + __popc(are_many & below)] = e;
          if (own[i] > 0 && own[i] <= kTurnRows) to.active[few + __popc(are_few & below)] = e;
        }
      }
      rows += all[i] & 0xffff;
      turns += all[i] >> 16;
      many += __popc(are_many);
      few += __popc(are_few);
    }
  }
  if (!writes) return;
  if (lane == 0) {
    to.first[spec.experts] = rows;
    to.turns[spec.experts] = turns;
    to.alive[spec.experts] = few;
  }
  for (int i = few + lane; i < spec.experts; i += 32) to.active[i] = -1;
}

__device__ inline void sync_all() {
#if defined(MLXS_HAS_CLUSTERS)
  if (gridDim.z > 1) return sync_cluster();
#endif
  __syncthreads();
}
// Of the first block.
__device__ inline int count_one(int* counts, int expert) {
#if defined(MLXS_HAS_CLUSTERS)
  if (gridDim.z > 1) return count_cluster(counts + expert, 0);
#endif
  return atomicAdd(counts + expert, 1);
}
__device__ inline int count_of(const int* counts, int expert) {
#if defined(MLXS_HAS_CLUSTERS)
  if (gridDim.z > 1) return read_cluster(counts + expert, 0);
#endif
  return counts[expert];
}

__global__ __launch_bounds__(32 * kMostWarps) void together_kernel(const float* logits, const int* positions,
                                                                   int rows,
                                                                   const __grid_constant__ Route spec,
                                                                   const __grid_constant__ Routed to) {
  MLXS_DYNAMIC_SHARED(memory, 16);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int apart = static_cast<int>(gridDim.z) * warps, begin = static_cast<int>(blockIdx.z) * warps + warp;
  auto* const counts = reinterpret_cast<int*>(memory);  // [experts], then where each begins
  int* const first = counts + spec.experts;
  auto* const own =
      reinterpret_cast<float*>(first + spec.experts) + static_cast<size_t>(2 * warp) * spec.experts;
  // Of each place, its expert, and who of the expert's it is.
  int* const chosen = first + spec.experts + static_cast<size_t>(2 * warps) * spec.experts;
  int* const ranks = chosen + (rows + apart - 1) / apart * warps * spec.used;
  for (int e = threadIdx.x; e < spec.experts; e += static_cast<int>(blockDim.x)) counts[e] = 0;
  const auto is_padding = [&](int row) { return positions != nullptr && positions[row] < 0; };
  bool padding = begin < rows && is_padding(begin);  // of the step, so known before
  sync_all();
  await_alone();  // the experts' kernel has much to fetch before it waits: not before the logits are there
  for (int row = begin, at = warp * spec.used; row < rows; row += apart, at += warps * spec.used) {
    if (row > begin) padding = is_padding(row);
    choose_experts(logits + static_cast<size_t>(row) * spec.experts, padding, spec, chosen + at,
                   to.weights + static_cast<size_t>(row) * spec.used, own, own + spec.experts, lane);
    __syncwarp();
    for (int j = lane; j < spec.used; j += 32) {
      const int expert = chosen[at + j];
      if (expert < 0) continue;
      const int rank = ranks[at + j] = count_one(counts, expert);
      if (rank < kTurnRows) to.leading[expert * kTurnRows + rank] = row;
    }
  }
  sync_all();
  if (warp == 0)
    order_experts(
        spec, [&](int e) { return count_of(counts, e); }, first, to, blockIdx.z == 0, lane);
  __syncthreads();
  for (int row = begin, at = warp * spec.used; row < rows; row += apart, at += warps * spec.used) {
    for (int j = lane; j < spec.used; j += 32) {
      const int expert = chosen[at + j], place = expert < 0 ? -1 : first[expert] + ranks[at + j];
      to.places[row * spec.used + j] = place;
      if (place >= 0) to.rows[place] = row;
    }
  }
#if defined(MLXS_HAS_CLUSTERS)
  if (gridDim.z > 1) sync_cluster();  // the others have read what is here
#endif
}

}  // namespace

bool route_together(cudaStream_t stream, const float* logits, const int* positions, int rows,
                    const Route& spec, const Routed& to) {
  if (rows > kMostTogether || rows * spec.used > 0xffff) return false;
  const int blocks =
      can_cluster() && rows > 2 * kBlockRows ? min(kMostBlocks, (rows + kBlockRows - 1) / kBlockRows) : 1;
  // Within 48 KiB of shared memory.
  const int warps = min((rows + blocks - 1) / blocks, min(kMostWarps, 36 * 1024 / (8 * spec.experts)));
  if (warps == 0) return false;
  const int own_rows = (rows + blocks * warps - 1) / (blocks * warps) * warps;
  const size_t bytes =
      static_cast<size_t>(warps + 1) * 8 * spec.experts + static_cast<size_t>(own_rows) * 8 * spec.used;
  if (bytes > 48 * 1024) return false;
  launch_cluster(together_kernel, blocks, dim3(1, 1, blocks), 32 * warps, bytes, stream, logits, positions,
                 rows, spec, to);
  return true;
}

}  // namespace mlxs::cuda
