// What the kernels of thin.cuh are told, and what a warp has on its way.
#pragma once

#include "backend/cuda/codes.cuh"
#include "backend/cuda/kernels.h"

namespace mlxs::cuda {

// Where a block's weights and rows come from.
enum class Source {
  kWeight,  // one weight, or the experts of ExpertRows, whose rows stand together
  kShared,  // one weight, each tile's columns shared by several blocks
  kRouter,  // a router's, whose last block chooses each row's experts (FewRows)
  kChosen,  // one of a row's experts
  kMix,     // all of a row's experts, their outputs weighed and summed
};

struct Thin {
  Rows w;
  ThinInput x;
  int rows;
  int first_column;
  ExpertRows experts;  // table == nullptr: w alone, all rows
  FewRows few;
  Finish f;
  // What all threads would have to work out.
  int units = 0;          // of a row
  int own_units = 0;      // of a warp
  int tiles = 0;          // of outputs
  int own_tiles = 0;      // of a block
  int last = 0;           // the last output
  int operand_bytes = 0;  // of shared memory for inputs that are normalized here, or their squares
  int group_rows = 0;     // of a block, if blocks share the rows of one weight
  ThinSplits splits{};
  bool pairs = false;  // kGated, but the two halves of the outputs are plain ones that share the reading of x
  NormBehind behind{};
  int own_blocks = 0;  // of the grid's x; those behind them norm
};

// Units on their way, of a warp, in a ring of shared memory of which every lane has its own part: weights,
// and of more than eight rows their inputs, too.
template <Codes kCodes, bool kGated, int kTiles>
constexpr int kStages = kTiles > 1               ? (kCodes == Codes::kBF16 && kGated ? 3
                                                    : kGated                         ? 4
                                                                                     : 5)
                        : kCodes == Codes::k4    ? (kGated ? 6 : 8)
                        : kCodes != Codes::kBF16 ? (kGated ? 4 : 6)
                                                 : (kGated ? 3 : 5);
template <Codes kCodes, Scaling kScaling, bool kGated, int kTiles>
constexpr int kStageBytes = (kUnitBytes<kCodes> + 32 * UnitScales<kScaling>::kLaneBytes) * (kGated ? 2 : 1) +
                            (kTiles > 1 ? kTiles * 1024 : 0);

template <int kTiles>
constexpr int kMostWarps = kTiles == 1 ? 16 : 8;  // of a block

}  // namespace mlxs::cuda
