// Starts the kernels of thin.cuh: which of them, with how many warps and how much shared memory. Included by
// thin_*.cu, one for each type of codes.
#pragma once

#include "backend/cuda/thin.cuh"

namespace mlxs::cuda {

// How a product is spread over the GPU.
struct ThinShape {
  int tiles;    // of outputs, of each of
  int weights;  // so many
  int units;    // of columns
  bool gated;
  int row_tiles;                // of eight rows
  int least_warps, most_warps;  // of a block
  int multiprocessors;
  int splits;  // blocks that share the columns of two tiles; 0: none do
};
struct ThinPlan {
  int warps = 1;      // of a block, which share a tile's columns
  int own_tiles = 1;  // of a block, one after the other
};
constexpr size_t kMostOfWarp = 33 * 1024;  // bytes of shared memory
ThinPlan plan_thin(const ThinShape& shape);
int expected_weights(const ExpertRows& experts, int most);  // that have rows

template <Codes kCodes, Scaling kScaling, int kTiles, bool kGated, Source kSource, bool kNorms = false>
void start_thin(cudaStream_t stream, Thin a, int blocks, int multiprocessors) {
  constexpr auto kKernel = thin_kernel<kCodes, kScaling, kTiles, kGated, kSource, kNorms>;
  allow_shared<kKernel>(most_shared());
  const int outputs = kGated ? a.w.rows / 2 : a.w.rows, used = a.few.route.used;
  a.last = outputs - 1;
  a.units = a.x.operand.stride / 64;
  a.tiles = (outputs + 15) / 16;
  // A unit behind the last is read, though not used: not where copies arrive.
  a.operand_bytes = a.x.raw != nullptr ? a.rows * normalized_stride(a.x.operand.stride) + 128 : 0;
  if (a.x.means.squares != nullptr)
    a.operand_bytes = (a.group_rows > 0 ? min(a.rows, a.group_rows) : a.rows) * squares_row(a.x.means) * 4;
  constexpr size_t each =
      (kGated ? 32 : 16) * (kTiles * 8 + 1) * 4 +
      kStages<kCodes, kGated, kTiles> * kStageBytes<kCodes, kScaling, kGated, kTiles>;  // of a warp
  static_assert(each <= kMostOfWarp);
  const int most = min(kMostWarps<kTiles>, static_cast<int>((most_shared() - a.operand_bytes) / each));
  int warps;
  if constexpr (kSource == Source::kMix) {
    warps = used * (a.units >= 8 && 2 * used <= most ? 2 : 1);
    a.own_units = warps > used ? (a.units + 1) / 2 : a.units;
    a.own_tiles = 1;
  } else {
    const ThinPlan plan = plan_thin({.tiles = a.tiles,
                                     .weights = expected_weights(a.experts, blocks),
                                     .units = a.units,
                                     .gated = kGated,
                                     .row_tiles = kTiles,
                                     .least_warps = a.x.raw != nullptr ? 4 : 1,
                                     .most_warps = most,
                                     .multiprocessors = multiprocessors,
                                     .splits = kSource == Source::kShared ? a.splits.splits : 0});
    warps = plan.warps;
    a.own_units = (a.units + warps * a.splits.splits - 1) / (warps * a.splits.splits);
    a.own_tiles = plan.own_tiles;
  }
  size_t shared = warps * each;
  if constexpr (kSource == Source::kRouter)
    shared = max(shared, static_cast<size_t>(warps) * a.few.route.experts * 8);
  a.own_blocks = (a.tiles + a.own_tiles - 1) / a.own_tiles;
  const int norming = kNorms ? a.rows * normed_pieces(a.behind) : 0;
  launch_early(kKernel, dim3(a.own_blocks + norming, blocks, a.splits.splits), warps * 32,
               a.operand_bytes + shared, stream, a);
}

template <Codes kCodes, Scaling kScaling>
void choose_thin(cudaStream_t stream, const Thin& a, int most_rows, int blocks, int multiprocessors) {
  const auto run = [&](auto start) { start(stream, a, blocks, multiprocessors); };
  switch (a.few.part) {
    case FewRows::Part::kNone:
      break;
    case FewRows::Part::kRouter:
      return run(start_thin<kCodes, kScaling, 1, false, Source::kRouter>);
    case FewRows::Part::kGated:
      return run(start_thin<kCodes, kScaling, 1, true, Source::kChosen>);
    case FewRows::Part::kMixed:
      return run(start_thin<kCodes, kScaling, 1, false, Source::kMix>);
  }
  if (a.behind.norm.gain != nullptr) {
    return a.splits.partial != nullptr ? run(start_thin<kCodes, kScaling, 1, true, Source::kShared, true>)
                                       : run(start_thin<kCodes, kScaling, 1, false, Source::kWeight, true>);
  }
  if (a.splits.partial != nullptr) return run(start_thin<kCodes, kScaling, 1, true, Source::kShared>);
  if (a.f.gated || a.pairs) {
    if (most_rows <= 8) return run(start_thin<kCodes, kScaling, 1, true, Source::kWeight>);
    if (most_rows <= 16) return run(start_thin<kCodes, kScaling, 2, true, Source::kWeight>);
    return run(start_thin<kCodes, kScaling, 4, true, Source::kWeight>);
  }
  if (most_rows <= 8) return run(start_thin<kCodes, kScaling, 1, false, Source::kWeight>);
  if (most_rows <= 16) return run(start_thin<kCodes, kScaling, 2, false, Source::kWeight>);
  run(start_thin<kCodes, kScaling, 4, false, Source::kWeight>);
}

template <Codes kCodes>
void choose_scaling(cudaStream_t stream, const Thin& a, int most_rows, int blocks, int multiprocessors) {
  if (a.w.group_shift >= 6)
    return choose_thin<kCodes, Scaling::kUnits>(stream, a, most_rows, blocks, multiprocessors);
  if (a.w.group_shift == 5)
    return choose_thin<kCodes, Scaling::kHalves>(stream, a, most_rows, blocks, multiprocessors);
  choose_thin<kCodes, Scaling::kCodes>(stream, a, most_rows, blocks, multiprocessors);
}

void thin_4(cudaStream_t stream, const Thin& a, int most_rows, int blocks, int multiprocessors);
void thin_8(cudaStream_t stream, const Thin& a, int most_rows, int blocks, int multiprocessors);
void thin_f8(cudaStream_t stream, const Thin& a, int most_rows, int blocks, int multiprocessors);
void thin_bf16(cudaStream_t stream, const Thin& a, int most_rows, int blocks, int multiprocessors);

}  // namespace mlxs::cuda
