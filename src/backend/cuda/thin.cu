// Which kernel of thin.cuh a product of a few rows takes, and how it is spread over the GPU.
#include <cmath>

#include "backend/cuda/thin_start.cuh"

namespace mlxs::cuda {

// Measured on an H200 over the shapes of four models. Up to eight rows a block's warps share a tile until the
// GPU has a dozen warps a multiprocessor and no share is much longer than two dozen units of gates and ups,
// or a hundred others; short tiles of many weights: three of them one after the other.
ThinPlan plan_thin(const ThinShape& s) {
  const int tiles = s.tiles * s.weights;
  if (s.row_tiles == 1) {
    if (s.splits > 0) return {max(1, min(s.most_warps, 2)), 1};
    const auto parts = [](int all, int each) { return (all + each - 1) / each; };
    const int wanted = max(parts(13 * s.multiprocessors, tiles), parts(s.units, s.gated ? 24 : 96));
    const int warps = max(s.least_warps, min(min(wanted, s.most_warps), max(1, s.units / 2)));
    return {warps, warps == 1 && s.units < 16 && tiles > 32 * s.multiprocessors ? 3 : 1};
  }
  // More rows: until there are half a dozen; beyond that the sum over warps costs more than it brings.
  const int longest = s.gated ? 24 : 32;
  int warps = s.least_warps;
  while (2 * warps <= s.most_warps && 2 * warps < s.units &&
         (tiles * warps < 8 * s.multiprocessors || s.units > longest * warps))
    warps *= 2;
  return {warps, warps == 1 && s.units < 16 && tiles > 64 * s.multiprocessors ? 2 : 1};
}

int expected_weights(const ExpertRows& experts, int most) {
  if (experts.table == nullptr) return most;
  const double missed = pow(1.0 - 1.0 / experts.count, experts.places);
  return max(1, static_cast<int>(experts.count * (1.0 - missed)));
}

bool thin_normalizes(const Rows& w, int rows, bool gated, const Norm& norm, int multiprocessors) {
  if (norm.layer || norm.bias != nullptr || w.columns % 8 != 0 || rows > 4 || rows * w.padded > 16384)
    return false;
  // Each block does it again: not for many.
  return ((gated ? w.rows / 2 : w.rows) + 15) / 16 <= 4 * multiprocessors && w.padded >= 512;
}

// The blocks that norm wait for the others. Half of the multiprocessors have none of them, and so room for
// those, whichever the GPU starts first.
bool norms_behind(const Rows& w, int rows, const Norm& norm, int multiprocessors) {
  constexpr int kMostRows = 8;  // of which squares are left to the next product
  const int pieces = (w.rows + kNormedColumns - 1) / kNormedColumns;
  return !norm.layer && norm.bias == nullptr && rows <= kMostRows && 2 * rows * pieces <= multiprocessors;
}

// Two tiles at once, which share the inputs, and as many blocks for their columns as fill the GPU with warps.
int thin_splits(const Rows& w, int rows, bool gated, int multiprocessors) {
  constexpr int kLongUnits = 256, kLeastUnits = 24;
  const int pairs = w.rows / 32, units = w.padded / 64;
  if (gated || rows > 8 || w.rows % 32 != 0 || pairs > kAttentionCounters || units < kLongUnits) return 0;
  return max(1, min(8 * multiprocessors / pairs, units / kLeastUnits));
}

int thin(cudaStream_t stream, const Rows& w, const ThinInput& x, int rows, int first_column, const Finish& f,
         const ExpertRows& experts, const FewRows& few, int multiprocessors, const ThinSplits& splits,
         const NormBehind& behind) {
  Thin a{w, x, rows, first_column, experts, few, f};
  a.splits = splits;
  a.behind = behind;
  a.pairs = splits.partial != nullptr;
  // Of experts, tiles for twice the average: a popular one takes several turns.
  int most = experts.table != nullptr ? 2 * experts.places / experts.count : rows;
  int blocks = experts.table != nullptr ? min(experts.count, experts.places) : 1;
  if (experts.table == nullptr && few.part == FewRows::Part::kNone && !a.pairs) {
    // Where that fills the GPU, sixteen rows a block and two tiles of outputs at once, for the reading of x
    // is what many rows cost; else blocks share the rows of small weights.
    const int tiles = ((f.gated ? w.rows / 2 : w.rows) + 15) / 16;
    a.pairs =
        !f.gated && w.rows % 32 == 0 && rows > 8 && tiles / 2 * ((rows + 15) / 16) >= multiprocessors * 3 / 4;
    most = rows <= 8 ? 8 : rows <= 16 || a.pairs ? 16 : 32;
    // Nor more than have room for their squares.
    const size_t squares = x.means.squares != nullptr ? 4 * static_cast<size_t>(squares_row(x.means)) : 0;
    while (!a.pairs && most > 8 &&
           (2 * tiles * ((rows + most - 1) / most) < multiprocessors ||
            most * squares + kMostOfWarp > most_shared()))
      most /= 2;
    a.group_rows = most;
    blocks = (rows + most - 1) / most;
  }
  if (few.part == FewRows::Part::kGated) blocks = rows * few.route.used;
  if (few.part == FewRows::Part::kMixed) blocks = rows;
  switch (w.type) {
    case Codes::k4:
      thin_4(stream, a, most, blocks, multiprocessors);
      break;
    case Codes::k8:
      thin_8(stream, a, most, blocks, multiprocessors);
      break;
    case Codes::kF8:
      thin_f8(stream, a, most, blocks, multiprocessors);
      break;
    case Codes::kBF16:
      thin_bf16(stream, a, most, blocks, multiprocessors);
      break;
  }
  if (behind.norm.gain != nullptr) return normed_pieces(behind);
  return a.pairs ? w.rows / 32 : ((f.gated ? w.rows / 2 : w.rows) + 15) / 16;
}

}  // namespace mlxs::cuda
