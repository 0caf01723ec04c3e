// Percentiles of measured values. Pure.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace mlxs {

// The nearest-rank percentile; 0 of nothing.
inline double percentile(std::vector<double> values, double percent) {
  if (values.empty()) return 0.0;
  const auto rank =
      static_cast<std::size_t>(std::clamp(std::ceil(percent / 100.0 * static_cast<double>(values.size())),
                                          1.0, static_cast<double>(values.size())));
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(rank - 1));
  return values[rank - 1];
}

}  // namespace mlxs
