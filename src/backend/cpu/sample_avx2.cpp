#include "backend/cpu/attention_float8.h"
#include "backend/cpu/sample_scan.h"

namespace mlxs::cpu {

const SampleKernels& sample_avx2() {
  static constexpr SampleKernels kKernels = Scans<Float8>::kernels("avx2");
  return kKernels;
}

}  // namespace mlxs::cpu
