#include "backend/cpu/sample_scan.h"

namespace mlxs::cpu {

const SampleKernels& sample_portable() {
  static constexpr SampleKernels kKernels = plain_kernels("portable");
  return kKernels;
}

}  // namespace mlxs::cpu
