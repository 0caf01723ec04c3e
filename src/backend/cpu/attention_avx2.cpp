#include "backend/cpu/attention_float8.h"
#include "backend/cpu/attention_rows.h"

namespace mlxs::cpu {

const AttentionKernels& attention_avx2() {
  static constexpr AttentionKernels kKernels{"avx2", transform_head<Float8>, append_rows<Float8>,
                                             attend_rows<Float8>, scale_row};
  return kKernels;
}

}  // namespace mlxs::cpu
