#include "backend/cpu/sample_scan.h"

namespace mlxs::cpu {

const SampleKernels& sample_avx2() {
  static constexpr SampleKernels kKernels = plain_kernels("avx2");
  return kKernels;
}

}  // namespace mlxs::cpu
