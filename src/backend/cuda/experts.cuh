// How the tiles of all experts of a step are shared by the blocks of expert_rows(): they are one line, of
// which every block takes an equal piece, whichever experts it cuts. Before the order of experts is known a
// block may begin with some of an expert's first tiles, which are its own then and no part of the line.
#pragma once

#include "backend/cuda/kernels.h"

namespace mlxs::cuda {

constexpr int kMostTurns = 64;  // of a block's piece, all together

struct Experts {
  Rows w;
  Operand x;
  ExpertRows experts;
  Finish f;
  int units;  // of a row
  int team;   // warps that share a tile
  int tiles;  // of a turn
  int guessed =
      0;  // of an expert's first tiles, shared by blocks that start with them before the order is known
  int each = 0;  // of these a block's
};

// Up to eight rows of an expert, and the block's tiles of them.
struct alignas(16) Turn {
  const char* codes;
  const char* scales;
  const float* bias;
  int first_tile;  // less the block's first
  int end;         // in the block's piece
  int place;       // of the first row
  int rows;
};

// Of a block: tiles, those that were guessed rightly and stand first among them, and the first turn behind
// them.
struct Piece {
  int tiles, guessed, first_turn;
};

// Whole blocks. weight: of the expert of the thread's number. turns: each at its number's remainder by
// kMostTurns; then what was guessed, tiles from guess_tile on of expert `guess` (or of none, -1).
__device__ inline Piece cut_piece(const Experts& a, ExpertWeight weight, int guess, int guess_tile,
                                  Turn* turns) {
  __shared__ int first_turn;
  const int count = a.experts.count;
  // The block's piece of the line, and whose tiles it has. Everything is read before anything is used.
  struct Lot {
    int turn, next_turn, place, next_place, alive;
  };
  const auto lot_of = [&](int e) {
    return Lot{a.experts.turns[e], a.experts.turns[e + 1], a.experts.first[e], a.experts.first[e + 1],
               a.guessed > 0 ? a.experts.alive[e] : 0};
  };
  Lot lot{}, own{};
  if (static_cast<int>(threadIdx.x) < count) lot = lot_of(threadIdx.x);
  if (guess >= 0) own = lot_of(guess);
  const int line =
      a.experts.turns[count] * a.tiles - (a.guessed > 0 ? a.experts.alive[count] * a.guessed : 0);
  const auto cut = [&](unsigned block) {
    return static_cast<int>(static_cast<unsigned long long>(line) * block / gridDim.x);
  };
  const bool guessed = own.next_turn > own.turn;  // well
  const int begin = cut(blockIdx.x), before = guessed ? a.each : 0, shift = before - begin;
  const int mine = cut(blockIdx.x + 1) + shift;
  for (int e = threadIdx.x; e < count; e += static_cast<int>(blockDim.x)) {
    if (e >= static_cast<int>(blockDim.x)) {
      weight = a.experts.table[e];
      lot = lot_of(e);
    }
    // Where in the piece the expert's tiles begin, those that were guessed counted.
    const int from = lot.turn * a.tiles - lot.alive * a.guessed - a.guessed + shift;
    for (int turn = lot.turn; turn < lot.next_turn; ++turn) {
      const int first = from + (turn - lot.turn) * a.tiles,
                start = turn == lot.turn ? first + a.guessed : first;
      if (start >= mine || first + a.tiles <= before) continue;
      const int place = lot.place + (turn - lot.turn) * kTurnRows;
      if (start <= before) first_turn = turn;
      turns[turn % kMostTurns] = {static_cast<const char*>(weight.codes),
                                  static_cast<const char*>(weight.scales),
                                  weight.bias,
                                  -first,
                                  min(mine, first + a.tiles),
                                  place,
                                  min(kTurnRows, lot.next_place - place)};
    }
    if (e == guess && guessed)
      turns[kMostTurns] = {static_cast<const char*>(weight.codes),
                           static_cast<const char*>(weight.scales),
                           weight.bias,
                           guess_tile,
                           before,
                           lot.place,
                           min(kTurnRows, lot.next_place - lot.place)};
  }
  __syncthreads();
  return {mine, before, first_turn};
}

}  // namespace mlxs::cuda
