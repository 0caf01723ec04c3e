// Which experts each row goes to, and the rows of every expert side by side, without the host: one warp a
// row; then one block orders the places. Of few rows in one kernel: route_together.cu.
#include "backend/cuda/launch.cuh"
#include "backend/cuda/route.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kMany = kTurnRows;  // rows of an expert, of which thin() takes more turns: these come first

// One block. to.places: of each place, its expert or -1. counts: [experts] of shared memory.
__device__ void order_places(int entries, const Route& spec, const Routed& to, int* counts) {
  // Of a warp's experts: rows, turns, those with many rows and those with few.
  struct Sums {
    int rows, turns, many, few;
  };
  __shared__ Sums of_warps[32];
  __shared__ int alive;  // experts with rows
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int e = threadIdx.x; e < spec.experts; e += static_cast<int>(blockDim.x)) counts[e] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < entries; i += static_cast<int>(blockDim.x)) {
    const int expert = to.places[i];
    if (expert >= 0) atomicAdd(&counts[expert], 1);
  }
  __syncthreads();
  // Experts side by side, a warp's next to each other.
  const int each = (spec.experts + warps * 32 - 1) / (warps * 32) * 32;
  const int begin = min(spec.experts, warp * each), end = min(spec.experts, begin + each);
  Sums before{};
  int many_all = 0;
  for (int pass = 0; pass < 2; ++pass) {
    if (pass == 1) {
      if (lane == 0) of_warps[warp] = before;
      __syncthreads();
      before = {};
      for (int w = 0; w < warps; ++w) {
        many_all += of_warps[w].many;
        before.few += of_warps[w].many;  // behind all those with many
        if (w >= warp) continue;
        before.rows += of_warps[w].rows;
        before.turns += of_warps[w].turns;
        before.many += of_warps[w].many;
        before.few += of_warps[w].few;
      }
    }
    for (int base = begin; base < end; base += 32) {
      const int e = base + lane, own = e < end ? counts[e] : 0, turns = (own + kTurnRows - 1) / kTurnRows;
      int all_rows, all_turns;
      const int rows_below = sum_below(own, lane, all_rows), turns_below = sum_below(turns, lane, all_turns);
      const unsigned many = __ballot_sync(0xffffffffu, own > kMany),
                     few = __ballot_sync(0xffffffffu, own > 0 && own <= kMany), below = (1u << lane) - 1;
      if (pass == 1 && e < end) {
        to.first[e] = counts[e] = before.rows + rows_below;
        to.turns[e] = before.turns + turns_below;
        to.alive[e] = before.many + before.few - many_all + __popc((many | few) & below);
        if (own > kMany) to.active[before.many + __popc(many & below)] = e;
        if (own > 0 && own <= kMany) to.active[before.few + __popc(few & below)] = e;
      }
      before.rows += all_rows;
      before.turns += all_turns;
      before.many += __popc(many);
      before.few += __popc(few);
    }
  }
  if (threadIdx.x == 0) {
    Sums all{};
    for (int w = 0; w < warps; ++w) {
      all.rows += of_warps[w].rows;
      all.turns += of_warps[w].turns;
      all.many += of_warps[w].many + of_warps[w].few;
    }
    to.first[spec.experts] = all.rows;
    to.turns[spec.experts] = all.turns;
    to.alive[spec.experts] = all.many;
    alive = all.many;
  }
  __syncthreads();
  for (int i = alive + static_cast<int>(threadIdx.x); i < spec.experts; i += static_cast<int>(blockDim.x))
    to.active[i] = -1;
  // In any order: a row's result does not depend on which rows stand beside it.
  for (int i = threadIdx.x; i < entries; i += static_cast<int>(blockDim.x)) {
    const int expert = to.places[i], place = expert < 0 ? -1 : atomicAdd(&counts[expert], 1);
    to.places[i] = place;
    if (place < 0) continue;
    to.rows[place] = i / spec.used;
    if (const int rank = place - to.first[expert]; rank < kTurnRows)
      to.leading[expert * kTurnRows + rank] = i / spec.used;
  }
}

__global__ void route_kernel(const float* logits, const int* positions, int rows,
                             const __grid_constant__ Route spec, const __grid_constant__ Routed to) {
  MLXS_DYNAMIC_SHARED(memory, 16);
  await();
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32, warp = threadIdx.x / 32;
  const int row = static_cast<int>(blockIdx.x) * warps + warp;
  if (row >= rows) return;
  float* own = reinterpret_cast<float*>(memory) + static_cast<size_t>(2 * warp) * spec.experts;
  choose_experts(logits + static_cast<size_t>(row) * spec.experts, positions != nullptr && positions[row] < 0,
                 spec, to.places + static_cast<size_t>(row) * spec.used,
                 to.weights + static_cast<size_t>(row) * spec.used, own, own + spec.experts, lane);
}

__global__ __launch_bounds__(kThreads) void order_kernel(int entries, const __grid_constant__ Route spec,
                                                         const __grid_constant__ Routed to) {
  MLXS_DYNAMIC_SHARED(memory, 16);
  await();
  order_places(entries, spec, to, reinterpret_cast<int*>(memory));
}

}  // namespace

void route(cudaStream_t stream, const float* logits, const int* positions, int rows, const Route& spec,
           const Routed& to) {
  if (route_together(stream, logits, positions, rows, spec, to)) return;
  // Within 48 KiB of shared memory, two arrays a warp.
  const int warps = min(48 * 1024 / (8 * spec.experts), 4);
  launch_early(route_kernel, dim3((rows + warps - 1) / warps), 32 * warps,
               static_cast<size_t>(warps) * 8 * spec.experts, stream, logits, positions, rows, spec, to);
  launch_early(order_kernel, dim3(1), kThreads, 4 * static_cast<size_t>(spec.experts), stream,
               rows * spec.used, spec, to);
}

}  // namespace mlxs::cuda
