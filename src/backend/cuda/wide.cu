// Which kernel of wide.cuh a product of many rows takes, and into how many parts its sums are split.
#include "backend/cuda/wide.cuh"

namespace mlxs::cuda {

namespace {

// Of up to 64 rows and sums that are not long: splits in blocks that run at once and join their sums, one and
// a half a multiprocessor at most, or they wait for each other's places. 0: not so.
int joined_splits(int blocks, int units, int multiprocessors) {
#if defined(MLXS_EMULATED)
  static_cast<void>(blocks), static_cast<void>(units), static_cast<void>(multiprocessors);
  return 0;
#else
  const int room = multiprocessors * 3 / 2 / blocks,
            splits = min(min(static_cast<int>(kMostJoined), room), units / 8);
  return units <= 128 && splits > 1 ? splits : 0;
#endif
}

}  // namespace

WideSplits wide_splits(const Rows& w, int rows, int multiprocessors) {
  const int tile = rows <= 32   ? 32
                   : rows <= 64 ? 64
                                : 128,
            outputs = rows <= 64 ? 128 : 256, units = w.padded / kDepth;
  const int blocks = (w.rows + outputs - 1) / outputs * ((rows + tile - 1) / tile);
  if (const int splits = rows <= 64 ? joined_splits(blocks, units, multiprocessors) : 0; splits > 0)
    return {splits, true};
  // Each split at least eight units long, and no more of them than multiprocessors have room for.
  const int wanted = (tile <= 64 ? 2 : 1) * multiprocessors / blocks, splits = max(1, min(wanted, units / 8));
  return {splits, splits == 1};
}

int wide(cudaStream_t stream, const Rows& w, const Operand& x, const RootMeans& means, int rows,
         int first_column, int splits, size_t split_floats, const Finish& f, const ExpertRows& experts) {
  const int half = f.gated ? w.rows / 2 : 0, last = (f.gated ? half : w.rows) - 1;
  const Wide a{w,
               x,
               means,
               rows,
               first_column,
               (x.stride / kDepth + splits - 1) / splits,
               experts,
               f,
               half,
               last,
               split_floats,
               stores_eights(f, first_column, last + 1)};
  const int most = experts.table != nullptr ? experts.places / experts.count : rows;
  switch (w.type) {
    case Codes::k4:
      wide_4(stream, a, most, splits);
      break;
    case Codes::k8:
      wide_8(stream, a, most, splits);
      break;
    case Codes::kF8:
      wide_f8(stream, a, most, splits);
      break;
    case Codes::kBF16:
      wide_bf16(stream, a, most, splits);
      break;
  }
  return last / 32 + 1;
}

}  // namespace mlxs::cuda
