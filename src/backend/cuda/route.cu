// Which experts each row goes to, and the rows of every expert side by side, without the host: the values
// that backend/moe_routing.h gives. One warp a row; then one block orders the places. Few rows: one launch
// does both.
#include "backend/cuda/epilogue.cuh"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kTogether = 8;  // rows that one block routes, a warp each, and orders

__device__ float warp_max(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

// Scores of experts outside the best groups become -infinity; a group's score is the sum of its two best.
__device__ void keep_best_groups(float* scores, const Route& spec, int lane) {
  const int size = spec.experts / spec.groups;
  const auto total = [&](int group) {
    float best = -INFINITY, second = -INFINITY;
    for (int e = group * size; e < (group + 1) * size; ++e) {
      if (scores[e] > best) {
        second = best;
        best = scores[e];
      } else if (scores[e] > second) {
        second = scores[e];
      }
    }
    return size > 1 ? best + second : best;
  };
  unsigned dropped = 0;  // this lane's groups lane, lane + 32, …
  for (int group = lane, bit = 0; group < spec.groups; group += 32, ++bit) {
    const float own = total(group);
    int better = 0;
    for (int other = 0; other < spec.groups; ++other) {
      const float its = total(other);
      better += its > own || (its == own && other < group);
    }
    if (better >= spec.groups_used) dropped |= 1u << bit;
  }
  __syncwarp();
  for (int group = lane, bit = 0; group < spec.groups; group += 32, ++bit) {
    if ((dropped >> bit & 1u) == 0) continue;
    for (int e = group * size; e < (group + 1) * size; ++e) scores[e] = -INFINITY;
  }
  __syncwarp();
}

// values, scores: [experts] of shared memory each. Leaves the chosen experts in to.places.
__device__ void route_row(const float* logits, int row, bool padding, const Route& spec, const Routed& to,
                          float* values, float* scores, int lane) {
  int* chosen = to.places + static_cast<size_t>(row) * spec.used;
  float* weights = to.weights + static_cast<size_t>(row) * spec.used;
  if (padding) {
    for (int j = lane; j < spec.used; j += 32) {
      chosen[j] = -1;
      weights[j] = 0.0f;
    }
    return;
  }
  float most = -INFINITY;
  for (int e = lane; e < spec.experts; e += 32) {
    values[e] = logits[static_cast<size_t>(row) * spec.experts + e] +
                (spec.router_bias != nullptr ? spec.router_bias[e] : 0.0f);
    most = fmaxf(most, values[e]);
  }
  if (spec.gate == RouteGate::kSoftmax) {
    most = warp_max(most);
    float sum = 0.0f;
    for (int e = lane; e < spec.experts; e += 32) sum += values[e] = __expf(values[e] - most);
    sum = warp_sum(sum);
    for (int e = lane; e < spec.experts; e += 32) values[e] /= sum;
  } else if (spec.gate == RouteGate::kSigmoid) {
    for (int e = lane; e < spec.experts; e += 32) values[e] = 1.0f / (1.0f + __expf(-values[e]));
  }
  for (int e = lane; e < spec.experts; e += 32) {
    const float score = values[e] + (spec.selection_bias != nullptr ? spec.selection_bias[e] : 0.0f);
    scores[e] = isnan(score) ? -INFINITY : score;  // its weight stays NaN: the row stays damaged
  }
  __syncwarp();
  if (spec.groups_used < spec.groups) keep_best_groups(scores, spec, lane);

  unsigned long long taken = 0;  // of this lane's experts lane, lane + 32, …; 64 of them at most
  float total = 0.0f, highest = -INFINITY;
  for (int j = 0; j < spec.used; ++j) {
    float best = -INFINITY;
    int which = spec.experts;
    for (int e = lane, bit = 0; e < spec.experts; e += 32, ++bit) {
      if ((taken >> bit & 1u) == 0 && (which == spec.experts || scores[e] > best)) {
        best = scores[e];
        which = e;
      }
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, best, step);
      const int its = __shfl_xor_sync(0xffffffffu, which, step);
      if (its < spec.experts && (which == spec.experts || other > best || (other == best && its < which))) {
        best = other;
        which = its;
      }
    }
    if (which % 32 == lane) taken |= 1ull << (which / 32);
    const float value = values[which];
    if (lane == 0) {
      chosen[j] = which;
      weights[j] = value;
    }
    total += value;
    highest = j == 0 ? value : fmaxf(highest, value);
  }
  __syncwarp();
  if (spec.gate == RouteGate::kSoftmaxOfChosen) {
    float sum = 0.0f;
    for (int j = lane; j < spec.used; j += 32) sum += weights[j] = __expf(weights[j] - highest);
    sum = warp_sum(sum);
    for (int j = lane; j < spec.used; j += 32) weights[j] /= sum;
    total = 1.0f;
  }
  const float factor = spec.scale / (spec.normalize ? total + 1e-20f : 1.0f);
  for (int j = lane; j < spec.used; j += 32) weights[j] *= factor;
}

// One block. counts: [experts] of shared memory.
__device__ void order_places(int entries, const Route& spec, const Routed& to, int* counts) {
  __shared__ int all, active;
  for (int e = threadIdx.x; e < spec.experts; e += static_cast<int>(blockDim.x)) counts[e] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < entries; i += static_cast<int>(blockDim.x)) {
    if (to.places[i] >= 0) atomicAdd(&counts[to.places[i]], 1);
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    const int lane = static_cast<int>(threadIdx.x);
    int before = 0, alive = 0;
    for (int base = 0; base < spec.experts; base += 32) {
      const int e = base + lane, own = e < spec.experts ? counts[e] : 0;
      int sum = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int lower = __shfl_up_sync(0xffffffffu, sum, step);
        if (lane >= step) sum += lower;
      }
      const unsigned some = __ballot_sync(0xffffffffu, own > 0);
      if (e < spec.experts) {
        to.first[e] = counts[e] = before + sum - own;
        if (own > 0) to.active[alive + __popc(some & ((1u << lane) - 1))] = e;
      }
      before += __shfl_sync(0xffffffffu, sum, 31);
      alive += __popc(some);
    }
    if (lane == 0) {
      all = before;
      active = alive;
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    to.first[spec.experts] = all;
    *to.num_active = active;
  }
  // In any order: a row's result does not depend on which rows stand beside it.
  for (int i = threadIdx.x; i < entries; i += static_cast<int>(blockDim.x)) {
    const int expert = to.places[i];
    if (expert < 0) continue;
    const int place = atomicAdd(&counts[expert], 1);
    to.places[i] = place;
    to.rows[place] = i / spec.used;
  }
}

extern __shared__ float scratch[];

__global__ __launch_bounds__(kThreads) void route_kernel(const float* logits, const int* positions, int rows,
                                                         Route spec, Routed to, int warps, bool order) {
  await();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (warp < warps) {
    float* own = scratch + static_cast<size_t>(2 * warp) * spec.experts;
    for (int row = static_cast<int>(blockIdx.x) * warps + warp; row < rows;
         row += static_cast<int>(gridDim.x) * warps) {
      route_row(logits, row, positions != nullptr && positions[row] < 0, spec, to, own, own + spec.experts,
                lane);
      __syncwarp();
    }
  }
  if (!order) return;
  __syncthreads();
  order_places(rows * spec.used, spec, to, reinterpret_cast<int*>(scratch));
}

__global__ __launch_bounds__(kThreads) void order_kernel(int entries, Route spec, Routed to) {
  await();
  order_places(entries, spec, to, reinterpret_cast<int*>(scratch));
}

}  // namespace

void route(cudaStream_t stream, const float* logits, const int* positions, int rows, const Route& spec,
           const Routed& to) {
  // Within 48 KiB of shared memory, two arrays a warp; the order's counts take half of one.
  const int warps = min(48 * 1024 / (8 * spec.experts), rows <= kTogether ? rows : 4);
  const size_t bytes = static_cast<size_t>(warps) * 8 * spec.experts;
  if (rows <= kTogether) {
    launch_early(route_kernel, dim3(1), 32 * kTogether, bytes, stream, logits, positions, rows, spec, to,
                 warps, true);
    return;
  }
  launch_early(route_kernel, dim3((rows + warps - 1) / warps), 32 * warps, bytes, stream, logits, positions,
               rows, spec, to, warps, false);
  launch_early(order_kernel, dim3(1), kThreads, 4 * static_cast<size_t>(spec.experts), stream,
               rows * spec.used, spec, to);
}

}  // namespace mlxs::cuda
