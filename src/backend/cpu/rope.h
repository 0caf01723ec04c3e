// cos and sin of every row of a step, computed once and kept until positions or the rope's parameters change,
// so that all layers of a step share them. Compared by value: the cache cannot go stale. Owned by the
// attention scratch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/ops.h"
#include "base/thread_pool.h"

namespace mlxs::cpu {

// Laid out so that rotating is vertical arithmetic. Neighbours rotated with each other, pairs (2i, 2i+1): a
// column for each dim, x[d]·cos[d] + x[d ^ 1]·sin[d], so sin's sign alternates. Pairs (i, i + dims/2): a
// column for each pair.
struct RopeTable {
  int half = 0;            // dims / 2; 0: no rotation
  int columns = 0;         // 2 · half if interleaved, else half
  std::vector<float> cos;  // [rows][columns], times the magnitude
  std::vector<float> sin;
};

class RopeCache {
 public:
  // The table stays valid until the third call with yet other parameters (local and global ropes of one model
  // alternate).
  const RopeTable& get(ThreadPool& pool, std::span<const std::int32_t> positions, const RopeSpec& spec);

 private:
  struct Entry {
    std::vector<std::int32_t> positions;
    std::vector<float> frequencies;
    float magnitude = 0.0f;
    bool interleaved = false;
    std::uint64_t used = 0;
    RopeTable table;
  };
  Entry entries_[2];
  std::uint64_t clock_ = 0;
};

}  // namespace mlxs::cpu
