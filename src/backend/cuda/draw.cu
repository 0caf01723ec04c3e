// Draws of rows with a temperature, their logits never leaving the GPU: the CPU's sampler with AVX-512
// (cpu/sample.cpp) in its arithmetic and its order of sums, so that a seed means the same token. Behind
// greedy(), whose pick is the row's best: weights are summed by chunks and by tiers of scores, those of the
// tier that surely has all that may be drawn are listed by their ids, and one block a row cuts and draws.
#include <cfloat>

#include "backend/cuda/draw_row.cuh"
#include "backend/cuda/launch.cuh"

namespace mlxs::cuda {
namespace {

// Of the order of sums: f32 of every sixteenth of a group, f64 above.
constexpr int kLanes = 16, kGroup = 1024, kChunk = 8 * kGroup;
// Tiers of scores that a row's candidates may begin at, then what min_p says, then all that have weight.
constexpr int kFixed = 6, kLeast = kFixed, kAll = kFixed + 1, kTiers = kFixed + 2;
constexpr int kListed = 4096;  // candidates that shared memory holds
constexpr int kMostDraws = 64;  // rows at once

struct Sums {  // of a chunk
  double total;
  float above[kTiers];
  int count[kTiers];
};

__device__ float tier_score(int tier, const Draw& draw) {
  constexpr float kScores[kFixed] = {-1.0f, -3.0f, -6.0f, -10.0f, -16.0f, -24.0f};
  return tier < kFixed ? kScores[tier] : tier == kLeast ? draw.least : -FLT_MAX;
}
__device__ bool cuts(const Draw& draw) {
  return draw.top_k > 0 || draw.top_p < 1.0f || draw.least > -FLT_MAX;
}

// Sixteen lanes a group, eight groups a block.
__global__ __launch_bounds__(kLanes * 8) void weigh_kernel(const float* logits, int columns,
                                                           const Draw* draws, const Pick* picks,
                                                           Sums* sums) {
  await();
  const Draw draw = read_draw(draws, static_cast<int>(blockIdx.y), columns);
  const int token = picks[blockIdx.y].token;
  if (draw.factor == 0.0f || token < 0) return;
  logits += static_cast<size_t>(blockIdx.y) * columns;
  const Values values(logits, draw, token);
  const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
  const int begin = static_cast<int>(blockIdx.x) * kChunk + group * kGroup,
            end = min(begin + kGroup, columns);
  float total = 0.0f, above[kTiers] = {};
  int count[kTiers] = {};
#pragma unroll 8
  for (int i = begin + lane; i < end; i += kLanes) {
    const float score = values.score(values.at(i)), weight = power_of_two(score);
    total += weight;
#pragma unroll
    for (int t = 0; t < kTiers; ++t) {
      const bool in = score >= tier_score(t, draw);
      above[t] += in ? weight : 0.0f;
      count[t] += in;
    }
  }
  double wide = total;
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) {
    wide += __shfl_xor_sync(0xffffffffu, wide, step);
#pragma unroll
    for (int t = 0; t < kTiers; ++t) {
      above[t] += __shfl_xor_sync(0xffffffffu, above[t], step);
      count[t] += __shfl_xor_sync(0xffffffffu, count[t], step);
    }
  }
  __shared__ Sums groups[8];
  if (lane == 0) {
    groups[group].total = wide;
#pragma unroll
    for (int t = 0; t < kTiers; ++t) {
      groups[group].above[t] = above[t];
      groups[group].count[t] = count[t];
    }
  }
  __syncthreads();
  Sums& to = sums[static_cast<size_t>(blockIdx.y) * gridDim.x + blockIdx.x];
  const int t = static_cast<int>(threadIdx.x);
  if (t < kTiers) {
    float all = 0.0f;
    int number = 0;
    for (const Sums& one : groups) {
      all += one.above[t];
      number += one.count[t];
    }
    to.above[t] = all;
    to.count[t] = number;
  } else if (t == kTiers) {
    double all = 0.0;
    for (const Sums& one : groups) all += one.total;
    to.total = all;
  }
}

// The tier that has every candidate: its number, how many it has, and how many in the chunks before `chunk`;
// and the weight of the whole row. The same for all threads of the block.
struct Choice {
  int tier, count, before;
  double total;
};
__device__ Choice choose(const Draw& draw, const Sums* sums, int chunks, int chunk) {
  __shared__ double above[kTiers];
  __shared__ int count[kTiers], before[kTiers];
  __shared__ Choice chosen;
  const int t = static_cast<int>(threadIdx.x);
  if (t < kTiers) {
    above[t] = 0.0;
    count[t] = before[t] = 0;
#pragma unroll 8
    for (int c = 0; c < chunks; ++c) {
      if (c < chunk) before[t] += sums[c].count[t];
      above[t] += static_cast<double>(sums[c].above[t]);
      count[t] += sums[c].count[t];
    }
  } else if (t == kTiers) {
    chosen.total = 0.0;
#pragma unroll 8
    for (int c = 0; c < chunks; ++c) chosen.total += sums[c].total;
  }
  __syncthreads();
  if (t == 0) {
    int tier = draw.top_k > 0 || draw.top_p < 1.0f ? 0 : kLeast;
    const auto holds = [&] {
      return draw.top_k > 0 ? count[tier] >= draw.top_k
                            : above[tier] >= static_cast<double>(draw.top_p) * chosen.total * (1 + 1e-5);
    };
    while (tier < kFixed && !holds()) ++tier;
    if (tier == kLeast && (draw.top_k > 0 || draw.top_p < 1.0f)) tier = kAll;
    chosen.tier = tier;
    chosen.count = count[tier];
    chosen.before = before[tier];
  }
  __syncthreads();
  return chosen;
}

// A warp a group, a block a chunk: the ids of the candidates, in their order.
__global__ __launch_bounds__(256) void list_kernel(const float* logits, int columns,
                                                   const Draw* draws, const Pick* picks, const Sums* sums,
                                                   int* ids) {
  await();
  const Draw draw = read_draw(draws, static_cast<int>(blockIdx.y), columns);
  const int token = picks[blockIdx.y].token;
  if (draw.factor == 0.0f || token < 0 || !cuts(draw)) return;
  logits += static_cast<size_t>(blockIdx.y) * columns;
  const Values values(logits, draw, token);
  const int chunk = static_cast<int>(blockIdx.x), chunks = static_cast<int>(gridDim.x);
  const Choice choice = choose(draw, sums + static_cast<size_t>(blockIdx.y) * chunks, chunks, chunk);
  const float least = tier_score(choice.tier, draw);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = chunk * kChunk + warp * kGroup;
  unsigned own = 0;  // lane i: which of the i-th 32 are candidates
#pragma unroll 8
  for (int i = 0; i < 32; ++i) {
    const int at = first + i * 32 + lane;
    const unsigned found =
        __ballot_sync(0xffffffffu, at < columns && values.score(values.at(min(at, columns - 1))) >= least);
    if (i == lane) own = found;
  }
  int sum = __popc(own);
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int lower = __shfl_up_sync(0xffffffffu, sum, step);
    if (lane >= step) sum += lower;
  }
  __shared__ int counts[8];
  if (lane == 31) counts[warp] = sum;
  __syncthreads();
  int base = choice.before - __popc(own) + sum;
  for (int w = 0; w < warp; ++w) base += counts[w];
  int* const to = ids + static_cast<size_t>(blockIdx.y) * columns;
  for (int i = 0; i < 32; ++i) {
    const unsigned found = __shfl_sync(0xffffffffu, own, i);
    const int at = __shfl_sync(0xffffffffu, base, i);
    if ((found >> lane & 1) != 0) to[at + __popc(found & ((1u << lane) - 1))] = first + i * 32 + lane;
  }
}

// A token of the whole row: in which chunk, then which of it.
__device__ int draw_of_all(const Values& values, int columns, const Sums* sums, int chunks, double uniform,
                           double total, int best_token) {
  __shared__ double in_chunk;
  __shared__ int chosen;
  __shared__ int drawn;
  if (threadIdx.x == 0) {
    double target = uniform * total;
    int chunk = 0;
#pragma unroll 8
    for (int c = 0; c + 1 < chunks; ++c) {
      if (chunk < c) continue;
      const double own = sums[c].total;
      if (target >= own) {
        target -= own;
        ++chunk;
      }
    }
    in_chunk = target;
    chosen = chunk;
    drawn = best_token;
  }
  __syncthreads();
  constexpr int kEach = kChunk / kBlock;
  const int begin = chosen * kChunk + static_cast<int>(threadIdx.x) * kEach;
  double weights[kEach], own = 0.0, all;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    weights[i] = begin + i < columns ? power_of_two(values.score(values.at(begin + i))) : 0.0f;
    own += weights[i];
  }
  const double before = block_before(own, all);
  double target = in_chunk;
  const unsigned me = threadIdx.x;
  const unsigned who = block_min(own > 0.0 ? (before + own > target ? me : 2 * kBlock - me) : 4 * kBlock);
  if (me == who || 2 * kBlock - me == who) {
    target -= before;
    bool found = false;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (found || weights[i] <= 0.0) continue;
      drawn = begin + i;
      found = target < weights[i];
      target -= weights[i];
    }
  }
  __syncthreads();
  return drawn;
}

__global__ __launch_bounds__(kBlock) void draw_kernel(const float* logits, int columns,
                                                      const Draw* draws, const Sums* sums, int chunks,
                                                      const int* ids, const __grid_constant__ Picks to,
                                                      int first) {
  await();
  const int row = first + static_cast<int>(blockIdx.x);
  const Draw draw = read_draw(draws, row, columns);
  const Pick pick = to.device[row];
  if (draw.factor == 0.0f || pick.token < 0) return;
  logits += static_cast<size_t>(row) * columns;
  const Values values(logits, draw, pick.token);
  sums += static_cast<size_t>(blockIdx.x) * chunks;
  const Choice choice = choose(draw, sums, chunks, 0);
  // One block is enough for candidates that it can hold; more are shared by all of the row's.
  const bool few = !cuts(draw) || choice.count <= kListed;
  if (few && blockIdx.z > 0) return;
  int token;
  if (!cuts(draw)) {
    token = draw_of_all(values, columns, sums, chunks, draw.uniform, choice.total, pick.token);
  } else {
    __shared__ float listed[kListed];
    ids += static_cast<size_t>(blockIdx.x) * columns;
    Candidates candidates{values, ids, few ? listed : nullptr, choice.count,
                          few ? Team{} : Team::of_grid()};
    unsigned low = 0xffffffffu;
#pragma unroll 8
    for (int i = candidates.team.thread(); i < choice.count; i += candidates.team.threads()) {
      const float value = values.at(ids[i]);
      if (few) listed[i] = value;
      low = min(low, key_of(value));
    }
    low = candidates.team.min(low);
    const unsigned high = key_of(values.best);
    if (draw.top_k > 0) candidates.keep_best(draw.top_k, low, high);
    if (draw.top_p < 1.0f) {
      double total = choice.total;
      if (draw.top_k > 0 && candidates.least == 0) {  // fewer than top_k: all of them
        const unsigned all[1] = {0};
        double sum[1];
        candidates.sum(all, sum, [&](float value) { return static_cast<double>(candidates.weight(value)); });
        total = sum[0];
      }
      candidates.keep_nucleus(draw.top_p, total, low, high);
    }
    token = candidates.draw(draw.uniform, draw.least);
  }
  if (threadIdx.x != 0 || token < 0) return;
  const float above = values.flat ? 0.0f : values.x[token] - values.best;
  const Pick drawn{token, pick.logprob + above};
  to.device[row] = drawn;
  to.host[*to.turn][row] = drawn;
}

constexpr int chunks_of(int columns) { return (columns + kChunk - 1) / kChunk; }

}  // namespace

size_t draw_bytes(int rows, int columns) {
  return min(rows, kMostDraws) *
         (chunks_of(columns) * sizeof(Sums) + static_cast<size_t>(columns) * sizeof(int));
}

void draw(cudaStream_t stream, const float* logits, int columns, const Draw* draws, int rows, bool teams,
          void* scratch, const Picks& to) {
  const int chunks = chunks_of(columns);
  auto* sums = static_cast<Sums*>(scratch);
  auto* ids = reinterpret_cast<int*>(sums + static_cast<size_t>(min(rows, kMostDraws)) * chunks);
#if defined(MLXS_EMULATED)
  teams = false;
#endif
  const int team = teams ? kMostTeam : 1;
  for (int first = 0; first < rows; first += kMostDraws) {
    const int count = min(rows - first, kMostDraws);
    const float* own = logits + static_cast<size_t>(first) * columns;
    launch_early(weigh_kernel, dim3(chunks, count), kLanes * 8, 0, stream, own, columns, draws + first,
                 to.device + first, sums);
    launch_early(list_kernel, dim3(chunks, count), 256, 0, stream, own, columns, draws + first,
                 to.device + first, sums, ids);
    launch_cluster(draw_kernel, team, dim3(count, 1, team), kBlock, 0, stream, logits, columns, draws, sums,
                   chunks, ids, to, first);
  }
}

}  // namespace mlxs::cuda
