// For how long cached KV pages had been unused when something became of them: a small histogram as plain
// numbers.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace mlxs {

// Seconds, inclusive; above the last there is one more bucket.
inline constexpr std::array<double, 8> kPageAgeBounds{0.1, 1, 10, 60, 300, 1800, 7200, 86400};

struct PageAges {
  std::array<std::uint64_t, kPageAgeBounds.size() + 1> counts{};
  double seconds = 0;  // their sum

  void add(double age) {
    const auto bucket = std::ranges::lower_bound(kPageAgeBounds, age) - kPageAgeBounds.begin();
    ++counts[static_cast<std::size_t>(bucket)];
    seconds += age;
  }
};

}  // namespace mlxs
