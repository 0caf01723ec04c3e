// Attention for any processor: vectors of four floats that the compiler maps to SSE2 or NEON.
#include "backend/cpu/attention_float4.h"
#include "backend/cpu/attention_rows.h"

namespace mlxs::cpu {

std::size_t attend_workspace_bytes(const KvLayout& layout, int rows) {
  // Row kernels: scores and P of 8 rows, then packed q. AMX: scores of two tiles of rows, K and V of a block
  // in bf16, lane sums, packed q.
  const auto padded = static_cast<std::size_t>((rows + kRowPad - 1) / kRowPad * kRowPad);
  const std::size_t scores = std::size_t{2} * kRowPad * kBlockTokens * 4;
  const std::size_t block =
      static_cast<std::size_t>(kBlockTokens * (layout.key_padded + layout.value_padded)) * 2;
  return scores + block + padded * (64 + static_cast<std::size_t>(layout.key_padded) * 2);
}

const AttentionKernels& attention_portable() {
  static constexpr AttentionKernels kKernels{"portable", transform_head<Float4>, append_rows<Float4>,
                                             attend_rows<Float4>, scale_row};
  return kKernels;
}

}  // namespace mlxs::cpu
