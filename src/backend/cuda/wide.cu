// Which kernel of wide.cuh a product of many rows takes, and into how many parts its sums are split.
#include "backend/cuda/wide.cuh"

namespace mlxs::cuda {

int wide_splits(const Rows& w, int rows, int multiprocessors) {
  const int tile = rows <= 32   ? 32
                   : rows <= 64 ? 64
                                : 128,
            outputs = rows <= 64 ? 128 : 256, units = w.padded / kDepth;
  const int blocks = (w.rows + outputs - 1) / outputs * ((rows + tile - 1) / tile);
  // Each split at least eight units long, and no more of them than multiprocessors have room for.
  const int wanted = (tile <= 64 ? 2 : 1) * multiprocessors / blocks;
  return max(1, min(wanted, units / 8));
}

void wide(cudaStream_t stream, const Rows& w, const Operand& x, int rows, int first_column, int splits,
          size_t split_floats, const Finish& f, const ExpertRows& experts) {
  const int half = f.gated ? w.rows / 2 : 0;
  const Wide a{w,
               x,
               rows,
               first_column,
               (x.stride / kDepth + splits - 1) / splits,
               experts,
               f,
               half,
               (f.gated ? half : w.rows) - 1,
               split_floats};
  const int most = experts.table != nullptr ? experts.places / experts.count : rows;
  switch (w.type) {
    case Codes::k4:
      return wide_4(stream, a, most, splits);
    case Codes::k8:
      return wide_8(stream, a, most, splits);
    case Codes::kBF16:
      return wide_bf16(stream, a, most, splits);
  }
}

}  // namespace mlxs::cuda
