#include "backend/cpu/attention_float16.h"
#include "backend/cpu/attention_rows.h"

namespace mlxs::cpu {

const AttentionKernels& attention_avx512() {
  static constexpr AttentionKernels kKernels{"avx512", transform_head<Float16>, append_rows<Float16>,
                                             attend_rows<Float16>, scale_row};
  return kKernels;
}

}  // namespace mlxs::cpu
