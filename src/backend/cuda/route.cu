// Which experts each row goes to, and the rows of every expert side by side, without the host: one warp a
// row; then one block orders the places, of few rows the last one to choose.
#include "backend/cuda/launch.cuh"
#include "backend/cuda/route.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kTogether = 128, kBlockRows = 8;  // rows of a launch that also orders, and of its blocks
constexpr int kMany = 8;  // rows of an expert, of which thin() takes more than one turn: these come first

// Before what the lanes below give.
__device__ inline int sum_below(int own, int lane, int& all) {
  int sum = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int lower = __shfl_up_sync(0xffffffffu, sum, step);
    if (lane >= step) sum += lower;
  }
  all = __shfl_sync(0xffffffffu, sum, 31);
  return sum - own;
}

// One block. chosen: of each place, its expert or -1; may be to.places. counts: [experts] of shared memory.
__device__ void order_places(int entries, const Route& spec, const int* chosen, const Routed& to,
                             int* counts) {
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
    const int expert = chosen[i];
    if (expert >= 0) atomicAdd(&counts[expert], 1);
  }
  __syncthreads();
  // Experts side by side, a warp's next to each other.
  const int each = (spec.experts + warps * 32 - 1) / (warps * 32) * 32;
  const int begin = min(spec.experts, warp * each), end = min(spec.experts, begin + each);
  Sums before{};
  for (int pass = 0; pass < 2; ++pass) {
    if (pass == 1) {
      if (lane == 0) of_warps[warp] = before;
      __syncthreads();
      before = {};
      for (int w = 0; w < warps; ++w) {
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
    alive = all.many;
  }
  __syncthreads();
  for (int i = alive + static_cast<int>(threadIdx.x); i < spec.experts; i += static_cast<int>(blockDim.x))
    to.active[i] = -1;
  // In any order: a row's result does not depend on which rows stand beside it.
  for (int i = threadIdx.x; i < entries; i += static_cast<int>(blockDim.x)) {
    const int expert = chosen[i], place = expert < 0 ? -1 : atomicAdd(&counts[expert], 1);
    to.places[i] = place;
    if (place >= 0) to.rows[place] = i / spec.used;
  }
}

__global__ __launch_bounds__(kThreads) void route_kernel(const float* logits, const int* positions, int rows,
                                                         const __grid_constant__ Route spec,
                                                         const __grid_constant__ Routed to, int warps,
                                                         bool order) {
  MLXS_DYNAMIC_SHARED(memory, 16);
  auto* scratch = reinterpret_cast<float*>(memory);
  // Of a block that also orders them: here.
  int* const chosen = order && gridDim.x == 1
                          ? reinterpret_cast<int*>(scratch + static_cast<size_t>(2 * warps) * spec.experts)
                          : to.places;
  await();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (warp < warps) {
    float* own = scratch + static_cast<size_t>(2 * warp) * spec.experts;
    for (int row = static_cast<int>(blockIdx.x) * warps + warp; row < rows;
         row += static_cast<int>(gridDim.x) * warps) {
      choose_experts(logits + static_cast<size_t>(row) * spec.experts,
                     positions != nullptr && positions[row] < 0, spec,
                     chosen + static_cast<size_t>(row) * spec.used,
                     to.weights + static_cast<size_t>(row) * spec.used, own, own + spec.experts, lane);
      __syncwarp();
    }
  }
  if (!order) return;
  if (gridDim.x > 1) {
    if (!is_last_block(to.counter, static_cast<int>(gridDim.x))) return;
  } else {
    __syncthreads();
  }
  order_places(rows * spec.used, spec, chosen, to, reinterpret_cast<int*>(scratch));
}

__global__ __launch_bounds__(kThreads) void order_kernel(int entries, const __grid_constant__ Route spec,
                                                         const __grid_constant__ Routed to) {
  MLXS_DYNAMIC_SHARED(memory, 16);
  await();
  order_places(entries, spec, to.places, to, reinterpret_cast<int*>(memory));
}

}  // namespace

void route(cudaStream_t stream, const float* logits, const int* positions, int rows, const Route& spec,
           const Routed& to) {
  // Within 48 KiB of shared memory, two arrays a warp, and what is chosen; the order's counts take half of
  // one.
  const bool together = rows <= kTogether;
  const int warps = min(44 * 1024 / (8 * spec.experts), together ? min(rows, kBlockRows) : 4);
  const size_t bytes = static_cast<size_t>(warps) * (8 * spec.experts + (rows <= warps ? 4 * spec.used : 0));
  launch_early(route_kernel, dim3((rows + warps - 1) / warps), together ? 256 : 32 * warps, bytes, stream,
               logits, positions, rows, spec, to, warps, together);
  if (together) return;
  launch_early(order_kernel, dim3(1), kThreads, 4 * static_cast<size_t>(spec.experts), stream,
               rows * spec.used, spec, to);
}

}  // namespace mlxs::cuda
