#include "base/dtype.h"

#include <array>

namespace mlxs {

const DTypeInfo& dtype_info(DType type) {
  // In the order of the enumerators.
  static constexpr std::array<DTypeInfo, 30> kInfo{{
      {"F32", 1, 4},      {"F16", 1, 2},         {"BF16", 1, 2},     {"I8", 1, 1},       {"I16", 1, 2},
      {"I32", 1, 4},      {"I64", 1, 8},         {"F64", 1, 8},      {"Q4_0", 32, 18},   {"Q4_1", 32, 20},
      {"Q5_0", 32, 22},   {"Q5_1", 32, 24},      {"Q8_0", 32, 34},   {"Q2_K", 256, 84},  {"Q3_K", 256, 110},
      {"Q4_K", 256, 144}, {"Q5_K", 256, 176},    {"Q6_K", 256, 210}, {"IQ4_NL", 32, 18}, {"MXFP4", 32, 17},
      {"MLX2", 32, 8},    {"MLX3", 32, 12},      {"MLX4", 32, 16},   {"MLX5", 32, 20},   {"MLX6", 32, 24},
      {"MLX8", 32, 32},   {"MLX-MXFP4", 32, 16}, {"Q8_MIN", 32, 36}, {"FP8", 1, 1},      {"E8M0", 1, 1},
  }};
  return kInfo[static_cast<std::size_t>(type)];
}

}  // namespace mlxs
