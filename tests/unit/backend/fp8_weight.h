// A random weight in FP8 (e4m3, all codes but those of no number alike), with a scale a block of columns and
// rows, as files have them.
#pragma once

#include <cstddef>
#include <random>
#include <span>
#include <vector>

#include "backend/ops.h"
#include "base/dtype.h"

namespace mlxs::test {

struct Fp8 {
  int rows, columns, group, group_rows;
  std::vector<std::byte> codes;
  std::vector<float> scales;

  // size: of the scales, about; a value's deviation is 113 times that. The default is less than what f16
  // holds well.
  Fp8(int rows_, int columns_, int group_, int group_rows_, std::mt19937& random, float size = 2.5e-5f)
      : rows(rows_), columns(columns_), group(group_), group_rows(group_rows_) {
    const int blocks = (rows + group_rows - 1) / group_rows * ((columns + group - 1) / group);
    std::uniform_real_distribution<float> sizes(0.8f * size, 1.2f * size);
    for (int i = 0; i < blocks; ++i) scales.push_back(sizes(random));
    for (int i = 0; i < rows * columns; ++i)
      codes.push_back(static_cast<std::byte>(random() % 127u + (random() & 1u) * 128u));
  }
  RawWeight raw() const {
    return {.name = "w",
            .type = DType::kF8E4M3,
            .rows = rows,
            .columns = columns,
            .bytes = codes,
            .scales = {.type = DType::kF32,
                       .group = group,
                       .group_rows = group_rows,
                       .scales = std::as_bytes(std::span(scales))}};
  }
};

}  // namespace mlxs::test
