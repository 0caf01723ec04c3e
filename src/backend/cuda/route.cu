// Which experts each row goes to, and the rows of every expert side by side, without the host: One warp a
// row; then one block orders the places. Few rows: one launch does both.
#include "backend/cuda/launch.cuh"
#include "backend/cuda/route.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kTogether = 64;  // rows that one block routes and orders
constexpr int kMany = 8;  // rows of an expert, of which thin() takes more than one turn: these come first

// One block. counts: [experts] of shared memory.
__device__ void order_places(int entries, const Route& spec, const Routed& to, int* counts) {
  for (int e = threadIdx.x; e < spec.experts; e += static_cast<int>(blockDim.x)) counts[e] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < entries; i += static_cast<int>(blockDim.x)) {
    if (to.places[i] >= 0) atomicAdd(&counts[to.places[i]], 1);
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x);
    int before = 0, turns = 0, alive = 0, busy = 0;  // experts with rows, those with many among them
    for (int base = 0; base < spec.experts; base += 32) {
      const int own = base + lane < spec.experts ? counts[base + lane] : 0;
      alive += __popc(__ballot_sync(0xffffffffu, own > kMany));
    }
    for (int base = 0; base < spec.experts; base += 32) {
      const int e = base + lane, own = e < spec.experts ? counts[e] : 0;
      const int own_turns = (own + kTurnRows - 1) / kTurnRows;
      int sum = own, sum_turns = own_turns;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int lower = __shfl_up_sync(0xffffffffu, sum, step);
        const int lower_turns = __shfl_up_sync(0xffffffffu, sum_turns, step);
        if (lane >= step) {
          sum += lower;
          sum_turns += lower_turns;
        }
      }
      const unsigned many = __ballot_sync(0xffffffffu, own > kMany),
                     few = __ballot_sync(0xffffffffu, own > 0 && own <= kMany),
                     lower_lanes = (1u << lane) - 1;
      if (e < spec.experts) {
        to.first[e] = counts[e] = before + sum - own;
        to.turns[e] = turns + sum_turns - own_turns;
        if (own > kMany) {
          to.active[busy + __popc(many & lower_lanes)] = e;
        } else if (own > 0) {
          to.active[alive + __popc(few & lower_lanes)] = e;
        }
      }
      before += __shfl_sync(0xffffffffu, sum, 31);
      turns += __shfl_sync(0xffffffffu, sum_turns, 31);
      busy += __popc(many);
      alive += __popc(few);
    }
    for (int i = alive + lane; i < spec.experts; i += 32) to.active[i] = -1;
    if (lane == 0) {
      to.first[spec.experts] = before;
      to.turns[spec.experts] = turns;
    }
  }
  __syncthreads();
  // In any order: a row's result does not depend on which rows stand beside it.
  for (int i = threadIdx.x; i < entries; i += static_cast<int>(blockDim.x)) {
    const int expert = to.places[i];
    if (expert < 0) continue;
    const int place = atomicAdd(&counts[expert], 1);
    to.places[i] = place;
    to.rows[place] = i / spec.used;
  }
}

__global__ __launch_bounds__(kThreads) void route_kernel(const float* logits, const int* positions, int rows,
                                                         Route spec, Routed to, int warps, bool order) {
  MLXS_DYNAMIC_SHARED(memory, 16);
  auto* scratch = reinterpret_cast<float*>(memory);
  await();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (warp < warps) {
    float* own = scratch + static_cast<size_t>(2 * warp) * spec.experts;
    for (int row = static_cast<int>(blockIdx.x) * warps + warp; row < rows;
         row += static_cast<int>(gridDim.x) * warps) {
      choose_experts(logits + static_cast<size_t>(row) * spec.experts,
                     positions != nullptr && positions[row] < 0, spec,
                     to.places + static_cast<size_t>(row) * spec.used,
                     to.weights + static_cast<size_t>(row) * spec.used, own, own + spec.experts, lane);
      __syncwarp();
    }
  }
  if (!order) return;
  __syncthreads();
  order_places(rows * spec.used, spec, to, reinterpret_cast<int*>(scratch));
}

__global__ __launch_bounds__(kThreads) void order_kernel(int entries, Route spec, Routed to) {
  MLXS_DYNAMIC_SHARED(memory, 16);
  await();
  order_places(entries, spec, to, reinterpret_cast<int*>(memory));
}

}  // namespace

void route(cudaStream_t stream, const float* logits, const int* positions, int rows, const Route& spec,
           const Routed& to) {
  // Within 48 KiB of shared memory, two arrays a warp; the order's counts take half of one.
  const int most_warps = 48 * 1024 / (8 * spec.experts);
  if (rows <= kTogether) {
    const int threads = rows <= 8 ? 256 : kThreads, warps = min(most_warps, min(rows, threads / 32));
    launch_early(route_kernel, dim3(1), threads, static_cast<size_t>(warps) * 8 * spec.experts, stream,
                 logits, positions, rows, spec, to, warps, true);
    return;
  }
  const int warps = min(most_warps, 4);
  const size_t bytes = static_cast<size_t>(warps) * 8 * spec.experts;
  launch_early(route_kernel, dim3((rows + warps - 1) / warps), 32 * warps, bytes, stream, logits, positions,
               rows, spec, to, warps, false);
  launch_early(order_kernel, dim3(1), kThreads, 4 * static_cast<size_t>(spec.experts), stream,
               rows * spec.used, spec, to);
}

}  // namespace mlxs::cuda
