// Random numbers that are the same on every platform, which the standard library's distributions are not.
// SplitMix64 (Steele et al. 2014): eight bytes of state, so that every conversation has its own. A value; one
// thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kv/chain_hash.h"

namespace mlxs {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() { return mix64(state_ += 0x9e3779b97f4a7c15u); }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }  // [0, 1)
  double exponential() { return -std::log1p(-uniform()); }                  // mean 1
  // A number of tokens, exponentially distributed around `mean`; 1 … 8 times the mean.
  std::int32_t length(std::int32_t mean) {
    return std::max(1, static_cast<std::int32_t>(std::lround(mean * std::min(8.0, exponential()))));
  }

 private:
  std::uint64_t state_;
};

}  // namespace mlxs
