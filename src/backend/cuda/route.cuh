// Which experts a row goes to, from the router's logits: the values that backend/moe_routing.h gives.
#pragma once

#include "backend/cuda/epilogue.cuh"

namespace mlxs::cuda {

// Of few rows, the choice and the order in one kernel; false: too many, or too many experts.
constexpr int kMostTogether = 128;  // rows
bool route_together(cudaStream_t stream, const float* logits, const int* positions, int rows,
                    const Route& spec, const Routed& to);

__device__ inline float warp_max(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

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

// Greater for greater numbers, and never 0.
__device__ inline unsigned order_of(float value) {
  const unsigned bits = __float_as_uint(value);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

// Scores of experts outside the best groups become -infinity; a group's score is the sum of its two best.
__device__ inline void keep_best_groups(float* scores, const Route& spec, int lane) {
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

// One warp. logits: of the row; values, scores: [experts] of shared memory each. The chosen experts, best
// first.
__device__ inline void choose_experts(const float* logits, bool padding, const Route& spec, int* chosen,
                                      float* weights, float* values, float* scores, int lane) {
  if (padding) {
    for (int j = lane; j < spec.used; j += 32) {
      chosen[j] = -1;
      weights[j] = 0.0f;
    }
    return;
  }
  float most = -INFINITY;
  for (int e = lane; e < spec.experts; e += 32) {
    values[e] = __ldcg(logits + e) + (spec.router_bias != nullptr ? spec.router_bias[e] : 0.0f);
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

  // Few experts: a lane keeps its own in registers. 0: taken, or none.
  constexpr int kOwn = 4;
  unsigned keys[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) keys[i] = lane + 32 * i < spec.experts ? order_of(scores[lane + 32 * i]) : 0;
  unsigned long long taken = 0;  // of this lane's experts lane, lane + 32, …; 64 of them at most
  float total = 0.0f, highest = -INFINITY, own = 0.0f;
  for (int j = 0; j < spec.used; ++j) {
    unsigned best = 0;
    int which = spec.experts;
    if (spec.experts <= 32 * kOwn) {
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        if (keys[i] > best) {
          best = keys[i];
          which = lane + 32 * i;
        }
      }
    } else {
      for (int e = lane, bit = 0; e < spec.experts; e += 32, ++bit) {
        const unsigned key = taken >> bit & 1u ? 0 : order_of(scores[e]);
        if (key > best) {
          best = key;
          which = e;
        }
      }
    }
    const unsigned highest_key = __reduce_max_sync(0xffffffffu, best);
    which = __reduce_min_sync(0xffffffffu, best == highest_key ? which : spec.experts);
    if (which % 32 == lane) {
      taken |= 1ull << (which / 32);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) keys[i] = which / 32 == i ? 0 : keys[i];
    }
    const float value = values[which];
    if (lane == 0) chosen[j] = which;
    if (j % 32 == lane) {
      if (j >= 32) weights[j - 32] = own;
      own = value;
    }
    total += value;
    highest = j == 0 ? value : fmaxf(highest, value);
  }
  // The last weight of each lane is in its register, those before lie in weights.
  const auto each = [&](auto&& change) {
    for (int j = lane; j < spec.used; j += 32) {
      if (j + 32 < spec.used) {
        weights[j] = change(weights[j]);
      } else {
        own = change(own);
      }
    }
  };
  if (spec.gate == RouteGate::kSoftmaxOfChosen) {
    float sum = 0.0f;
    each([&](float value) {
      value = __expf(value - highest);
      sum += value;
      return value;
    });
    sum = warp_sum(sum);
    each([&](float value) { return value / sum; });
    total = 1.0f;
  }
  const float factor = spec.scale / (spec.normalize ? total + 1e-20f : 1.0f);
  each([&](float value) { return value * factor; });
  const int last = (spec.used - 1 - lane) / 32 * 32 + lane;
  if (lane < spec.used) weights[last] = own;
}

// Whole blocks, after a router's product: the last one chooses each row's experts. memory: two floats an
// expert for each of its warps.
__device__ inline void choose_in_last_block(const FewRows& few, int rows, int blocks, char* memory) {
  if (!is_last_block(few.counter, blocks)) return;
  const int experts = few.route.experts, used = few.route.used, warps = blockDim.x / 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float* own = reinterpret_cast<float*>(memory) + static_cast<size_t>(2 * warp) * experts;
  for (int row = warp; row < rows; row += warps) {
    choose_experts(few.logits + static_cast<size_t>(row) * experts, few.positions[row] < 0, few.route,
                   few.chosen + row * used, few.weights + row * used, own, own + experts, lane);
    __syncwarp();
  }
}

}  // namespace mlxs::cuda
