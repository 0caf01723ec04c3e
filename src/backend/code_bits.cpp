#include "backend/code_bits.h"

namespace mlxs {

int mlx_code_bits(DType type) {
  switch (type) {
    case DType::kMlx2:
      return 2;
    case DType::kMlx3:
      return 3;
    case DType::kMlx4:
    case DType::kMlxFp4:
      return 4;
    case DType::kMlx5:
      return 5;
    case DType::kMlx6:
      return 6;
    case DType::kMlx8:
      return 8;
    default:
      return 0;
  }
}

}  // namespace mlxs
