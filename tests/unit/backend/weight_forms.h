// Every form in which a weight can be stored, as random tensors: GGUF's and float types, MLX's widths and
// groups, FP4 and FP8 with their scales beside them. For tests that take an op through all of them.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "random_weights.h"

namespace mlxs::cpu::test {

inline RandomWeight random_fp4(std::int64_t rows, std::int64_t columns, std::mt19937& random) {
  constexpr float kValues[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  RandomWeight w{"weight", DType::kMlxFp4, rows, columns, {}, (12 + 2 * 128) * 0.125};
  w.bytes.resize(static_cast<std::size_t>(rows * columns / 2));
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    if (i % 32 == 0) w.scales.push_back(static_cast<std::byte>(122 + random() % 4));  // 2^-5 … 2^-2
    const auto code = static_cast<unsigned>(random() & 15u);
    w.bytes[static_cast<std::size_t>(i / 2)] |= static_cast<std::byte>(code << i % 2 * 4);
    const float size = std::ldexp(kValues[code & 7u], static_cast<int>(w.scales.back()) - 127);
    w.values.push_back(code >= 8 ? -size : size);
  }
  w.grouping = {.type = DType::kE8M0, .group = 32};
  return w;
}

inline RandomWeight random_fp8(std::int64_t rows, std::int64_t columns, std::mt19937& random) {
  constexpr int kBlock = 128;
  RandomWeight w{"weight", DType::kF8E4M3, rows, columns, {}, 2.0};
  std::vector<float> scales;
  const std::int64_t across = (columns + kBlock - 1) / kBlock;
  for (std::int64_t i = 0; i < (rows + kBlock - 1) / kBlock * across; ++i)
    scales.push_back(std::ldexp(1.0f, -8 - static_cast<int>(random() % 3)));
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    const auto code = static_cast<unsigned>(random() % 127u + (random() & 1u) * 128u);
    w.bytes.push_back(static_cast<std::byte>(code));
    const int exponent = (code >> 3) & 15, mantissa = code & 7;
    const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                     : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    const float scale =
        scales[static_cast<std::size_t>(i / columns / kBlock * across + i % columns / kBlock)];
    w.values.push_back(code >= 128 ? -size * scale : size * scale);
  }
  w.scales = stored_floats(DType::kF32, scales);
  w.grouping = {.type = DType::kF32, .group = kBlock, .group_rows = kBlock};
  return w;
}

// Every form in which a weight can be stored.
struct Form {
  std::string name;
  int block;  // K is a multiple of it
  std::function<RandomWeight(std::int64_t rows, std::int64_t columns, std::mt19937&)> make;
};
inline std::vector<Form> scaled_forms() {
  std::vector<Form> forms;
  for (const MlxWidth& width : kMlxWidths) {
    for (const int group : kMlxGroups) {
      const DType scale = group == 32 ? DType::kF32 : group == 64 ? DType::kBF16 : DType::kF16;
      forms.push_back({"mlx" + std::to_string(width.bits) + "_g" + std::to_string(group), group,
                       [=](std::int64_t rows, std::int64_t columns, std::mt19937& random) {
                         return random_affine(width, group, scale, rows, columns, random);
                       }});
    }
  }
  forms.push_back({"mlx_mxfp4", 32, random_fp4});
  forms.push_back({"fp8", 1, random_fp8});
  return forms;
}
inline std::vector<Form> all_forms() {
  std::vector<Form> forms = scaled_forms();
  for (const DType type : kWeightTypes) {
    forms.push_back({std::string(dtype_info(type).name), dtype_info(type).block_elements,
                     [=](std::int64_t rows, std::int64_t columns, std::mt19937& random) {
                       return random_weight(type, rows, columns, random);
                     }});
  }
  return forms;
}

}  // namespace mlxs::cpu::test
