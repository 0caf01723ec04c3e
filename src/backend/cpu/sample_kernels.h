// The vocabulary scans of sampling, one table an instruction set. Pure functions over floats; any pool thread
// may call. "Score" below is (x - shift) · factor: a base-2 logit relative to the row's best, so exp2(score)
// is a token's weight.
#pragma once

#include <cstdint>

namespace mlxs::cpu {

inline constexpr int kGroup = 1024;     // elements whose lane-wise maxima are kept together
inline constexpr int kLaneMaxima = 16;  // maxima of a group: element i counts for maximum i mod 16
inline constexpr int kTiers = 4;
inline constexpr float kTierScores[kTiers] = {-3.0f, -6.0f, -10.0f, -16.0f};

struct TierSums {
  double total = 0.0;         // Σ exp2(score)
  double above[kTiers] = {};  // of those with score ≥ kTierScores[i]
};

struct SampleKernels {
  const char* name;
  // maxima[16 · group + lane]; absent lanes of the last group get -inf. True if some x is NaN (maxima ignore
  // it).
  bool (*scan)(const float* x, int count, float* maxima);
  // First index whose x equals `value`, or count.
  int (*find)(const float* x, int count, float value);
  // Adds to sums; `tiers` false: the total only.
  void (*sum)(const float* x, int count, float shift, float factor, bool tiers, TierSums& sums);
  // weights[i] = exp2(score)
  void (*weigh)(const float* x, int count, float shift, float factor, float* weights);
  // Those with score ≥ least, in order: ids first_id + i and their x. Returns how many. Both have room for
  // count + 16.
  int (*gather)(const float* x, int count, float shift, float factor, float least, int first_id,
                std::int32_t* ids, float* values);
  // out[i] = bit i of `allowed` ? x[i] : -inf
  void (*mask)(const float* x, int count, const std::uint32_t* allowed, float* out);
};

const SampleKernels& sample_portable();
#if defined(__x86_64__)
const SampleKernels& sample_avx2();
const SampleKernels& sample_avx512();
#endif

}  // namespace mlxs::cpu
