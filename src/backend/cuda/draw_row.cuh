// A row that is drawn from, and its candidates: which of them top_k, top_p and min_p leave, and the one that
// a random number means. As cpu/sample.cpp has it; included by draw.cu alone.
#pragma once

#include "backend/cuda/block_sums.cuh"
#include "backend/cuda/sampling.h"

namespace mlxs::cuda {

__device__ inline Draw read_draw(const Draw* draws, int row, int columns) {
  Draw draw = draws[row];
  if (draw.top_k >= columns) draw.top_k = 0;
  return draw;
}

// A row as it is drawn from. If its best is +infinity, those that have it share the draw.
struct Values {
  const float* x;
  float best, factor;
  bool flat;
  __device__ Values(const float* row, const Draw& draw, int token) : x(row), factor(draw.factor) {
    best = x[token];
    flat = best == INFINITY;
    if (flat) best = 0.0f;
  }
  __device__ float at(int i) const {
    const float value = x[i];
    return !flat ? value : value == INFINITY ? 0.0f : -INFINITY;
  }
  __device__ float score(float value) const { return (value - best) * factor; }
};

// 2^x, x at most 0, rounded as attention_float16.h does.
__device__ inline float power_of_two(float x) {
  if (!(x > -200.0f)) return 0.0f;
  const float whole = floorf(x), f = x - whole;
  float p = 0.0018671300495043397f;
  p = fmaf(p, f, 0.009017029777169228f);
  p = fmaf(p, f, 0.05579991266131401f);
  p = fmaf(p, f, 0.24016444385051727f);
  p = fmaf(p, f, 0.6931512951850891f);
  p = fmaf(p, f, 1.0f);
  const int exponent = static_cast<int>(whole), half = exponent / 2;
  return p * __uint_as_float(static_cast<unsigned>(half + 127) << 23) *
         __uint_as_float(static_cast<unsigned>(exponent - half + 127) << 23);
}

// Order of floats as that of numbers.
__device__ inline unsigned key_of(float value) {
  const unsigned bits = __float_as_uint(value + 0.0f);  // -0 is 0
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

// The candidates of a row, by all threads of a team's blocks; and which of them are left: those whose logit's key is
// above `least`, and the first `ties` that have it.
struct Candidates {
  const Values& values;
  const int* ids;
  const float* logits;  // of the candidates; null: there are too many
  int count;
  mutable Team team;
  unsigned least = 0;
  int ties = 1 << 30;

  __device__ float logit(int i) const { return logits != nullptr ? logits[i] : values.at(ids[i]); }
  __device__ float weight(float logit) const { return power_of_two(values.score(logit)); }

  // Σ number(logit) of those whose key is at least each of `from`.
  template <int kFroms, class Number>
  __device__ void sum(const unsigned (&from)[kFroms], double (&sums)[kFroms], Number number) const {
    return logits != nullptr ? sum_by<8>(from, sums, number) : sum_by<16>(from, sums, number);
  }
  template <int kOnce, int kFroms, class Number>  // so many on their way at once
  __device__ void sum_by(const unsigned (&from)[kFroms], double (&sums)[kFroms], Number number) const {
    for (double& one : sums) one = 0.0;
    const int apart = team.threads();
    for (int begin = team.thread(); begin < count; begin += kOnce * apart) {
      float some[kOnce];
#pragma unroll
      for (int n = 0; n < kOnce; ++n)
        some[n] = begin + n * apart < count ? logit(begin + n * apart) : -INFINITY;
#pragma unroll
      for (int n = 0; n < kOnce; ++n) {
        const unsigned key = key_of(some[n]);
        if (key < from[0] || begin + n * apart >= count) continue;
        const double own = number(some[n]);
#pragma unroll
        for (int j = 0; j < kFroms; ++j) sums[j] += key >= from[j] ? own : 0.0;
      }
    }
    team.sum(sums);
  }
  // The highest key in low … high of which those at or above it reach `goal`; low, if none does.
  template <class Number>
  __device__ unsigned search(unsigned low, unsigned high, double goal, Number number) const {
    return logits != nullptr ? search_by<3>(low, high, goal, number) : search_by<7>(low, high, goal, number);
  }
  template <int kFroms, class Number>  // that many keys a pass
  __device__ unsigned search_by(unsigned low, unsigned high, double goal, Number number) const {
    while (low < high) {
      const unsigned step = (high - low) / (kFroms + 1) + 1;
      unsigned from[kFroms];
#pragma unroll
      for (int i = 0; i < kFroms; ++i) from[i] = low + (i + 1) * step;
      double sums[kFroms];
      sum(from, sums, number);
      unsigned above = high, reached = low;
#pragma unroll
      for (int i = kFroms - 1; i >= 0; --i) {
        if (sums[i] < goal) above = min(above, from[i] - 1);
      }
#pragma unroll
      for (int i = 0; i < kFroms; ++i) {
        if (sums[i] >= goal) reached = from[i];
      }
      low = reached;
      high = above;
    }
    return low;
  }
  // Keeps `top` best, the first of equals.
  __device__ void keep_best(int top, unsigned low, unsigned high) {
    if (count <= top) return;
    const auto one = [](float) { return 1.0; };
    least = search(low, high, top, one);
    const unsigned above[1] = {least + 1};
    double better[1];
    sum(above, better, one);
    ties = top - static_cast<int>(better[0]);
  }
  // Keeps the best whose weights reach share · total, at least one; after keep_best(), of those and their
  // total.
  __device__ void keep_nucleus(float share, double total, unsigned low, unsigned high) {
    const auto weigh = [&](float value) { return static_cast<double>(weight(value)); };
    const auto equal_weight = [&](unsigned key) {
      return weight(__uint_as_float((key >> 31) != 0 ? key & 0x7fffffffu : ~key));
    };
    if (least > 0) {
      const unsigned above[1] = {least + 1};
      double better[1];
      sum(above, better, weigh);
      total = better[0] + static_cast<double>(ties) * static_cast<double>(equal_weight(least));
    }
    const double goal = fmax(static_cast<double>(share) * total, 1e-300);
    const unsigned edge = search(max(low, least), high, goal, weigh);
    const unsigned from[2] = {edge, edge + 1};
    double weights[2], numbers[2];
    sum(from, weights, weigh);
    sum(from, numbers, [](float) { return 1.0; });
    int equal = static_cast<int>(numbers[0] - numbers[1]);
    if (edge == least) equal = min(equal, ties);
    const auto each = static_cast<double>(equal_weight(edge));
    int needed = 1;
    if (each > 0.0 && weights[1] + each < goal)
      needed = static_cast<int>(fmin((goal - weights[1]) / each, static_cast<double>(equal)));
    while (needed > 1 && weights[1] + (needed - 1) * each >= goal) --needed;
    while (needed < equal && weights[1] + needed * each < goal) ++needed;
    least = edge;
    ties = needed;
  }
  // The one at `uniform` of the weights of those that are left and have a score of at least `score`; -1 in
  // blocks that did not find it.
  __device__ int draw(double uniform, float score) const {
    const int each = (count + team.threads() - 1) / team.threads(), begin = min(team.thread() * each, count),
              end = min(begin + each, count);
    int equal = 0, all_equal;
#pragma unroll 8
    for (int i = begin; i < end; ++i) equal += key_of(logit(i)) == least;
    equal = team.before(equal, all_equal);
    const auto walk = [&](auto visit) {
      int rank = equal;
      for (int i = begin; i < end; ++i) {
        const float value = logit(i);
        const unsigned key = key_of(value);
        if (key < least || (key == least && rank++ >= ties) || !(values.score(value) >= score)) continue;
        if (!visit(ids[i], static_cast<double>(weight(value)))) return;
      }
    };
    double own = 0.0, all;
    int rank = equal;
#pragma unroll 8
    for (int i = begin; i < end; ++i) {
      const float value = logit(i);
      const unsigned key = key_of(value);
      const bool left = (key > least || (key == least && rank < ties)) && values.score(value) >= score;
      rank += key == least;
      own += left ? static_cast<double>(weight(value)) : 0.0;
    }
    const double before = team.before(own, all);
    double target = uniform * all;
    // The first whose share the target is in; should rounding have left a crumb, the last that has any.
    const auto me = static_cast<unsigned>(team.thread()), threads = static_cast<unsigned>(team.threads());
    const unsigned who =
        team.min(own > 0.0 ? (before + own > target ? me : 2 * threads - me) : 4 * threads);
    __shared__ int drawn;
    if (threadIdx.x == 0) drawn = -1;
    __syncthreads();
    if (me == who || 2 * threads - me == who) {
      target -= before;
      walk([&](int id, double weight) {
        if (weight <= 0.0) return true;
        drawn = id;
        if (target < weight) return false;
        target -= weight;
        return true;
      });
    }
    __syncthreads();
    team.leave();
    return drawn;
  }
};

}  // namespace mlxs::cuda
