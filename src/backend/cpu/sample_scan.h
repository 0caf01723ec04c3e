// The scans in plain loops over 16 lanes that compilers vectorize; included by the portable and the AVX2
// file. In an unnamed namespace: code compiled for one ISA must not be merged with another's.
#pragma once

#include "backend/cpu/sample_kernels.h"

namespace mlxs::cpu {
namespace {

constexpr float kInfinity = __builtin_inff();

// 2^x: integer part into the exponent, polynomial of the rest (9e-8); 0 below 2^-126.
inline float exp2_lane(float x) {
  const float clamped = x > -126.0f ? x : -126.0f;
  const float shifted = clamped + 12582912.0f;
  const float f = clamped - (shifted - 12582912.0f);
  float p = 0.001326472731307149f;
  p = p * f + 0.009671512991189957f;
  p = p * f + 0.05550733581185341f;
  p = p * f + 0.24022242426872253f;
  p = p * f + 0.6931470036506653f;
  p = p * f + 1.0f;
  std::int32_t exponent, bits;
  __builtin_memcpy(&exponent, &shifted, 4);
  __builtin_memcpy(&bits, &p, 4);
  bits += static_cast<std::int32_t>(static_cast<std::uint32_t>(exponent) << 23);
  float power;
  __builtin_memcpy(&power, &bits, 4);
  return x >= -126.0f ? power : 0.0f;
}

bool scan_plain(const float* x, int count, float* maxima) {
  int unordered = 0;
  for (int group = 0; group < count; group += kGroup, maxima += kLaneMaxima) {
    const int end = group + kGroup < count ? group + kGroup : count;
    float best[kLaneMaxima];
    int nan[kLaneMaxima] = {};
    for (int l = 0; l < kLaneMaxima; ++l) best[l] = -kInfinity;
    int i = group;
    for (; i + kLaneMaxima <= end; i += kLaneMaxima) {
      for (int l = 0; l < kLaneMaxima; ++l) {
        const float v = x[i + l];
        best[l] = v > best[l] ? v : best[l];
        nan[l] |= v != v;
      }
    }
    for (int l = 0; i < end; ++i, ++l) {
      best[l] = x[i] > best[l] ? x[i] : best[l];
      nan[l] |= x[i] != x[i];
    }
    for (int l = 0; l < kLaneMaxima; ++l) {
      maxima[l] = best[l];
      unordered |= nan[l];
    }
  }
  return unordered != 0;
}

int find_plain(const float* x, int count, float value) {
  for (int i = 0; i < count; ++i) {
    if (x[i] == value) return i;
  }
  return count;
}

void sum_plain(const float* x, int count, float shift, float factor, bool tiers, TierSums& sums) {
  // f32 lanes over a group at most, f64 above.
  for (int group = 0; group < count; group += kGroup) {
    const int end = group + kGroup < count ? group + kGroup : count;
    float total[16] = {}, above[kTiers][16] = {};
    int i = group;
    for (; i + 16 <= end; i += 16) {
      float score[16], weight[16];
      for (int l = 0; l < 16; ++l) score[l] = (x[i + l] - shift) * factor;
      for (int l = 0; l < 16; ++l) weight[l] = exp2_lane(score[l]);
      for (int l = 0; l < 16; ++l) total[l] += weight[l];
      if (!tiers) continue;
      for (int t = 0; t < kTiers; ++t) {
        for (int l = 0; l < 16; ++l) above[t][l] += score[l] >= kTierScores[t] ? weight[l] : 0.0f;
      }
    }
    for (int l = 0; i < end; ++i, ++l) {
      const float score = (x[i] - shift) * factor;
      const float weight = exp2_lane(score);
      total[l] += weight;
      for (int t = 0; t < kTiers; ++t) above[t][l] += score >= kTierScores[t] ? weight : 0.0f;
    }
    for (int l = 0; l < 16; ++l) {
      sums.total += static_cast<double>(total[l]);
      for (int t = 0; t < kTiers; ++t) sums.above[t] += static_cast<double>(above[t][l]);
    }
  }
}

void weigh_plain(const float* x, int count, float shift, float factor, float* weights) {
  for (int i = 0; i < count; ++i) weights[i] = exp2_lane((x[i] - shift) * factor);
}

int gather_plain(const float* x, int count, float shift, float factor, float least, int first_id,
                 std::int32_t* ids, float* values) {
  int found = 0;
  const auto take = [&](int begin, int end) {
    for (int i = begin; i < end; ++i) {
      if ((x[i] - shift) * factor >= least) {
        ids[found] = first_id + i;
        values[found++] = x[i];
      }
    }
  };
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    int any = 0;
    for (int l = 0; l < 16; ++l) any |= (x[i + l] - shift) * factor >= least;
    if (any != 0) take(i, i + 16);
  }
  take(i, count);
  return found;
}

void mask_plain(const float* x, int count, const std::uint32_t* allowed, float* out) {
  for (int i = 0; i < count; i += 32) {
    const std::uint32_t word = allowed[i / 32];
    const int end = count - i < 32 ? count - i : 32;
    for (int l = 0; l < end; ++l) out[i + l] = ((word >> l) & 1u) != 0 ? x[i + l] : -kInfinity;
  }
}

constexpr SampleKernels plain_kernels(const char* name) {
  return {name, scan_plain, find_plain, sum_plain, weigh_plain, gather_plain, mask_plain};
}

}  // namespace
}  // namespace mlxs::cpu
