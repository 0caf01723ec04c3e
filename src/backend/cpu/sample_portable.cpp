#include "backend/cpu/attention_float4.h"
#include "backend/cpu/sample_scan.h"

namespace mlxs::cpu {

const SampleKernels& sample_portable() {
  static constexpr SampleKernels kKernels = Scans<Float4>::kernels("portable");
  return kKernels;
}

}  // namespace mlxs::cpu
