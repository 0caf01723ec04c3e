// The scans of sampling for a vector type V without masks of its own (Float4, Float8); ends are padded with
// -inf. In an unnamed namespace: code compiled for one ISA must not be merged with another's.
#pragma once

#include "backend/cpu/sample_kernels.h"

namespace mlxs::cpu {
namespace {

template <class V>
struct Scans {
  using F = typename V::F;
  static constexpr int kVectors = kLaneMaxima / V::kLanes;  // of sixteen elements
  static constexpr float kInfinity = __builtin_inff();

  // Calls body(first element of sixteen) over the range, the last sixteen filled up with -inf.
  template <class Body>
  static void each_sixteen(const float* x, int begin, int end, Body body) {
    int i = begin;
    for (; i + 16 <= end; i += 16) body(x + i);
    if (i == end) return;
    float padded[16];
    for (int l = 0; l < 16; ++l) padded[l] = i + l < end ? x[i + l] : -kInfinity;
    body(padded);
  }

  static bool scan(const float* x, int count, float* maxima) {
    F unordered = V::zero();
    for (int group = 0; group < count; group += kGroup, maxima += kLaneMaxima) {
      F best[kVectors];
      for (int v = 0; v < kVectors; ++v) best[v] = V::set1(-kInfinity);
      each_sixteen(x, group, group + kGroup < count ? group + kGroup : count, [&](const float* at) {
        for (int v = 0; v < kVectors; ++v) {
          const F value = V::load(at + v * V::kLanes);
          best[v] = V::max(value, best[v]);  // a NaN value keeps best
          unordered = V::either(unordered, V::unordered(value));
        }
      });
      for (int v = 0; v < kVectors; ++v) V::store(maxima + v * V::kLanes, best[v]);
    }
    return V::any(unordered);
  }

  static int find(const float* x, int count, float value) {
    for (int i = 0; i < count; ++i) {
      if (x[i] == value) return i;
    }
    return count;
  }

  template <bool kWithTiers>
  static void sum_groups(const float* x, int count, F shift, F factor, TierSums& sums) {
    // f32 lanes over a group at most, f64 above.
    for (int group = 0; group < count; group += kGroup) {
      F total = V::zero(), above[kTiers] = {total, total, total, total};
      each_sixteen(x, group, group + kGroup < count ? group + kGroup : count, [&](const float* at) {
        for (int v = 0; v < kVectors; ++v) {
          const F score = V::mul(V::sub(V::load(at + v * V::kLanes), shift), factor);
          const F weight = V::exp2(score);
          total = V::add(total, weight);
          if constexpr (kWithTiers) {
            for (int t = 0; t < kTiers; ++t) {
              above[t] = V::add(above[t], V::both(V::at_least(score, V::set1(kTierScores[t])), weight));
            }
          }
        }
      });
      sums.total += static_cast<double>(V::reduce_add(total));
      if constexpr (kWithTiers) {
        for (int t = 0; t < kTiers; ++t) sums.above[t] += static_cast<double>(V::reduce_add(above[t]));
      }
    }
  }
  static void sum(const float* x, int count, float shift, float factor, bool tiers, TierSums& sums) {
    if (tiers) {
      sum_groups<true>(x, count, V::set1(shift), V::set1(factor), sums);
    } else {
      sum_groups<false>(x, count, V::set1(shift), V::set1(factor), sums);
    }
  }

  static void weigh(const float* x, int count, float shift, float factor, float* weights) {
    const F shifts = V::set1(shift), factors = V::set1(factor);
    const auto weight = [&](const float* at) {
      return V::exp2(V::mul(V::sub(V::load(at), shifts), factors));
    };
    int i = 0;
    for (; i + V::kLanes <= count; i += V::kLanes) V::store(weights + i, weight(x + i));
    if (i == count) return;
    float padded[V::kLanes];
    for (int l = 0; l < V::kLanes; ++l) padded[l] = i + l < count ? x[i + l] : -kInfinity;
    V::store(padded, weight(padded));
    for (int l = 0; i + l < count; ++l) weights[i + l] = padded[l];
  }

  static int gather(const float* x, int count, float shift, float factor, float least, int first_id,
                    std::int32_t* ids, float* values) {
    const F shifts = V::set1(shift), factors = V::set1(factor), limit = V::set1(least);
    int found = 0;
    for (int i = 0; i < count; i += V::kLanes) {
      const int end = i + V::kLanes < count ? i + V::kLanes : count;
      if (end - i == V::kLanes &&
          !V::any(V::at_least(V::mul(V::sub(V::load(x + i), shifts), factors), limit))) {
        continue;
      }
      for (int j = i; j < end; ++j) {
        if ((x[j] - shift) * factor >= least) {
          ids[found] = first_id + j;
          values[found++] = x[j];
        }
      }
    }
    return found;
  }

  static void mask(const float* x, int count, const std::uint32_t* allowed, float* out) {
    for (int i = 0; i < count; i += 32) {
      const std::uint32_t word = allowed[i / 32];
      const int end = count - i < 32 ? count - i : 32;
      for (int l = 0; l < end; ++l) out[i + l] = ((word >> l) & 1u) != 0 ? x[i + l] : -kInfinity;
    }
  }

  static constexpr SampleKernels kernels(const char* name) {
    return {name, scan, find, sum, weigh, gather, mask};
  }
};

}  // namespace
}  // namespace mlxs::cpu
