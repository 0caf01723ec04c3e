// Random floats, and floats as a weight of a backend, for tests that run ops of any backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "backend/ops.h"
#include "base/dtype.h"

namespace mlxs::test {

inline std::vector<float> random_floats(std::size_t count, float spread, unsigned seed, float around = 0.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(around, spread);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

inline WeightPtr weight_of(Backend& backend, const std::vector<float>& values, std::int64_t rows,
                           WeightUse use) {
  const RawWeight raw{.name = "w",
                      .type = DType::kF32,
                      .rows = rows,
                      .columns = static_cast<std::int64_t>(values.size()) / rows,
                      .bytes = std::as_bytes(std::span(values))};
  return backend.prepare({&raw, 1}, use, nullptr);
}

}  // namespace mlxs::test
