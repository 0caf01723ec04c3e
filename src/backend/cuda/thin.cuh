// Products of a few rows: bound by the bytes of the weights, which are read once for all rows. Weights lie in
// the order of the tensor cores' registers (kernels.h, Rows), so a warp reads a unit, sixteen outputs by 64
// columns, with one load a lane and multiplies it as it is (mma.sync, bf16 operands, f32 sums). The warps of
// a block share the columns of a tile, or each takes tiles of its own; some units are always on their way,
// the first ones before the inputs are there. Codes of 4 and 8 bits are exact in bf16, so groups of 32 and 64
// are scaled behind the product, in f32; the sum of the inputs that a group's bias multiplies comes from a
// product with ones.
#pragma once

#include "backend/cuda/codes.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/norm_behind.cuh"
#include "backend/cuda/operand.cuh"
#include "backend/cuda/root_means.cuh"
#include "backend/cuda/route.cuh"
#include "backend/cuda/thin_norm.cuh"
#include "backend/cuda/thin_spec.cuh"
#include "backend/cuda/thin_splits.cuh"

namespace mlxs::cuda {

template <Codes kCodes, Scaling kScaling, int kTiles, bool kGated, Source kSource, bool kNorms>
__global__ __launch_bounds__(kMostWarps<kTiles> * 32, 1) void thin_kernel(const __grid_constant__ Thin a) {
  constexpr bool kBare = one_a_unit(kScaling) || kScaling == Scaling::kHalves;
  constexpr bool kBiases = kBare && kScaling != Scaling::kFloats;
  constexpr int kSets = kGated ? 2 : 1;  // tiles of outputs at once: gates and their ups
  constexpr int kStages = cuda::kStages<kCodes, kGated, kTiles>;
  constexpr int kStageBytes = cuda::kStageBytes<kCodes, kScaling, kGated, kTiles>;
  constexpr bool kRingInputs = kTiles > 1;
  constexpr int kBytes = kUnitBytes<kCodes>, kScaleBytes = UnitScales<kScaling>::kBytes;
  MLXS_DYNAMIC_SHARED(memory, 16);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int g = lane / 4, t = lane % 4;
  if (kNorms && static_cast<int>(blockIdx.x) >= a.own_blocks) return norm_behind(a);

  ExpertWeight weight{a.w.codes, a.w.scales, a.f.bias};
  // Blocks may share a tile's columns, too.
  constexpr bool kSplits = kSource == Source::kShared;
  int begin = 0, rows = a.rows, part = kSplits ? warp + static_cast<int>(blockIdx.z) * warps : warp;
  float factor = 1.0f;
  constexpr bool kPlain = kSource == Source::kWeight || kSplits || kSource == Source::kRouter;
  if constexpr (kPlain) {
    if (a.experts.table != nullptr) {
      await();
      const int expert = a.experts.active[blockIdx.y];
      if (expert < 0) return;
      weight = a.experts.table[expert];
      begin = a.experts.first[expert];
      rows = a.experts.first[expert + 1] - begin;
    } else if (a.group_rows > 0) {
      begin = static_cast<int>(blockIdx.y) * a.group_rows;
      rows = min(rows - begin, a.group_rows);
    }
  } else {
    await();
    const int used = a.few.route.used, place = static_cast<int>(blockIdx.y);
    int expert;
    if constexpr (kSource == Source::kChosen) {
      expert = a.few.chosen[place];
      if (expert < 0) return;
      begin = place;
    } else {
      const int parts = warps / used, j = place * used + warp / parts;
      part = warp % parts;
      expert = a.few.chosen[j];
      factor = a.few.weights[j];
      begin = j;
    }
    rows = 1;
    weight = a.few.table[max(expert, 0)];
    if (expert < 0) {
      factor = 0.0f;
      weight.bias = nullptr;
    }
  }

  const int units = a.units;
  const int from_unit = min(units, part * a.own_units), to_unit = min(units, from_unit + a.own_units);
  const int count = to_unit - from_unit;  // units of a tile that are this warp's
  const int first_tile = static_cast<int>(blockIdx.x) * a.own_tiles;
  const int end_tile = min(a.tiles, first_tile + a.own_tiles);
  const size_t from = static_cast<size_t>(first_tile) * units + from_unit;
  const char* codes_from = static_cast<const char*>(weight.codes) + from * kBytes + lane * 16;
  const char* scales_from =
      static_cast<const char*>(weight.scales) + from * kScaleBytes + UnitScales<kScaling>::lane_offset(lane);
  const size_t next_set = static_cast<size_t>(a.tiles) * units;  // units from gates to ups

  // What is fetched next, and where to.
  constexpr int kOwnScales = UnitScales<kScaling>::kLaneBytes, kSetBytes = kBytes + 32 * kOwnScales;
  char* const ring = memory + a.operand_bytes + warp * (kStages * kStageBytes);
  const char* codes_at = codes_from;
  const char* scales_at = scales_from;
  int to_fetch = 0, fetch_unit = 0, fetch_stage = 0;  // units left
  int stage = 0;                                      // that is multiplied next
  const auto fetch_weights = [&] {
    if (to_fetch > 0) {
      char* to = ring + fetch_stage * kStageBytes;
#pragma unroll
      for (int s = 0; s < kSets; ++s) {
        UnitCodes<kCodes>::copy(to + s * kSetBytes + lane * 16, codes_at + s * next_set * kBytes);
        UnitScales<kScaling>::copy(to + s * kSetBytes + kBytes + lane * kOwnScales,
                                   scales_at + s * next_set * kScaleBytes);
      }
      codes_at += kBytes;
      scales_at += kScaleBytes;
      if (++fetch_unit == count) {
        fetch_unit = 0;
        codes_at += (units - count) * kBytes;
        scales_at += (units - count) * kScaleBytes;
      }
      --to_fetch;
    }
    if (!kRingInputs) commit_copies();
    fetch_stage = fetch_stage + 1 == kStages ? 0 : fetch_stage + 1;
  };
  const auto fetch_first = [&] {
    codes_at = codes_from;
    scales_at = scales_from;
    fetch_unit = fetch_stage = stage = 0;
    to_fetch = count * (end_tile - first_tile);
#pragma unroll 1
    for (int i = 0; i < kStages - 1; ++i) fetch_weights();
  };
  fetch_first();
  // What follows a sum of the first tile; outputs of a thread's that it reads on the way.
  constexpr bool kEnds = (kPlain && kSource != Source::kRouter) || kSource == Source::kMix;
  const int own_output = first_tile * 16 + static_cast<int>(threadIdx.x % 16);
  float gain = 1.0f, other_gain = 1.0f;
  if (kEnds && a.f.gain != nullptr && own_output <= a.last) {
    gain = gain_of(a.f, own_output);
    if (a.pairs) other_gain = gain_of(a.f, own_output + a.last + 1);
  }
  KeptGains gains{};
  if (kPlain && a.x.raw != nullptr) gains.read(a.x);
  if (kPlain && a.experts.table == nullptr) await();
  auto* const squares = reinterpret_cast<float*>(memory);
  const bool lacks_means = kPlain && a.x.means.squares != nullptr;
  if (lacks_means) fetch_squares(a.x.means, begin, rows, squares);
  float residual = 0.0f, other_residual = 0.0f;
  if (kEnds && a.f.residual != nullptr && own_output <= a.last) {
    const int row = kSource == Source::kMix
                        ? static_cast<int>(blockIdx.y)
                        : begin + min(static_cast<int>(threadIdx.x) / 16, rows - 1);
    residual = residual_of(a.f, row, a.first_column + own_output);
    if (a.pairs) other_residual = residual_of(a.f, row, a.first_column + own_output + a.last + 1);
  }

  const char* x_rows = static_cast<const char*>(a.x.operand.data);
  int x_stride = a.x.operand.stride * 2;  // bytes
  if (kPlain && a.x.raw != nullptr) {
    normalize_here(a.x, gains, rows, memory);
    x_rows = memory;
    x_stride = normalized_stride(a.x.operand.stride);
  }

  float* const shares = reinterpret_cast<float*>(memory + a.operand_bytes +
                                                 warps * (kStages * kStageBytes));  // [warps][outputs][rows]
  constexpr int kWide = kTiles * 8 + 1, kOutputs = kSets * 16;
  for (int first_row = 0; first_row < rows; first_row += kTiles * 8) {
    const char* x_from[kTiles];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      int row = begin + min(first_row + n * 8 + g, rows - 1);  // what there are too many is not stored
      if constexpr (kPlain) {
        if (a.experts.table != nullptr && a.experts.rows != nullptr) row = a.experts.rows[row];
      } else if constexpr (kSource == Source::kChosen) {
        row /= a.few.route.used;
      }
      x_from[n] = x_rows + static_cast<size_t>(row) * x_stride + from_unit * 128 + t * 16;
    }
    if (first_row > 0) fetch_first();
    // Inputs follow the weights of their unit.
    int inputs_left = count * (end_tile - first_tile), inputs_unit = 0, inputs_stage = 0;
    const auto fetch_inputs = [&] {
      if constexpr (kRingInputs) {
        if (inputs_left > 0) {
          char* to = ring + inputs_stage * kStageBytes + kSets * kSetBytes + lane * 16;
#pragma unroll
          for (int n = 0; n < kTiles; ++n) {
            if (first_row + n * 8 >= rows) break;  // whatever is there is not stored
#pragma unroll
            for (int piece = 0; piece < 2; ++piece)
              copy16(to + (2 * n + piece) * 512, x_from[n] + inputs_unit * 128 + piece * 64);
          }
          inputs_unit = inputs_unit + 1 == count ? 0 : inputs_unit + 1;
          --inputs_left;
        }
        commit_copies();
        inputs_stage = inputs_stage + 1 == kStages ? 0 : inputs_stage + 1;
      }
    };
    if (kRingInputs) {
#pragma unroll 1
      for (int i = 0; i < kStages - 1; ++i) fetch_inputs();
    }
    for (int tile = first_tile; tile < end_tile; ++tile) {
      float sums[kSets][kTiles][4] = {};
      const char* x_at[kTiles];
      uint4 x[kTiles][2];
      const auto read = [&](int i) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
          for (int piece = 0; piece < 2; ++piece)
            x[n][piece] = *reinterpret_cast<const uint4*>(x_at[n] + i * 128 + piece * 64);
        }
      };
#pragma unroll
      for (int n = 0; n < kTiles; ++n) x_at[n] = x_from[n];
      if (!kRingInputs) read(0);
#pragma unroll 2
      for (int unit = 0; unit < count; ++unit) {
        wait_copies<kStages - 2>();
        const char* own = ring + stage * kStageBytes;
        UnitCodes<kCodes> unit_codes[kSets];
        UnitScales<kScaling> unit_scales[kSets];
#pragma unroll
        for (int s = 0; s < kSets; ++s) {
          unit_codes[s].take(own + s * kSetBytes + lane * 16);
          unit_scales[s].take(own + s * kSetBytes + kBytes + lane * kOwnScales);
        }
        if constexpr (kRingInputs) {
#pragma unroll
          for (int n = 0; n < kTiles; ++n) {
#pragma unroll
            for (int piece = 0; piece < 2; ++piece) {
              x[n][piece] = *reinterpret_cast<const uint4*>(own + kSets * kSetBytes + (2 * n + piece) * 512 +
                                                            lane * 16);
            }
          }
        }
        stage = stage + 1 == kStages ? 0 : stage + 1;
        fetch_weights();  // to where the unit before was
        fetch_inputs();
        // A piece's products apart where there is room, so that no long chain of them waits for each
        // other.
        constexpr int kChains = one_a_unit(kScaling) && kTiles > 1 ? 1 : 2;
        float parts[kSets][kChains][kTiles][4], ones[kChains][kTiles][4];
#pragma unroll
        for (int piece = 0; piece < 2; ++piece) {
          const int chain = piece % kChains;
          const bool opens = piece == chain;
          if constexpr (kBiases) {
            const unsigned one[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
#pragma unroll
            for (int n = 0; n < kTiles; ++n) {
              const uint4 v = x[n][piece];
              opens ? mma_first(ones[chain][n], one, v.x, v.y) : mma(ones[chain][n], one, v.x, v.y);
              mma(ones[chain][n], one, v.z, v.w);
            }
          }
#pragma unroll
          for (int s = 0; s < kSets; ++s) {
            unsigned p[2][4];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              const Eight<kCodes> eight = unit_codes[s].eight(h, piece);
              if constexpr (kScaling == Scaling::kCodes) {
                scaled_pairs(eight, unit_scales[s].of(h, piece), p[h]);
              } else {
                eight.pairs(p[h]);
              }
            }
            const unsigned early[4] = {p[0][0], p[1][0], p[0][1], p[1][1]};
            const unsigned late[4] = {p[0][2], p[1][2], p[0][3], p[1][3]};
#pragma unroll
            for (int n = 0; n < kTiles; ++n) {
              const uint4 v = x[n][piece];
              if constexpr (kBare) {
                float(&to)[4] = parts[s][chain][n];
                opens ? mma_first(to, early, v.x, v.y) : mma(to, early, v.x, v.y);
                mma(to, late, v.z, v.w);
              } else {
                mma(sums[s][n], early, v.x, v.y);
                mma(sums[s][n], late, v.z, v.w);
              }
            }
          }
        }
        if constexpr (kBare) {
#pragma unroll
          for (int s = 0; s < kSets; ++s) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
#pragma unroll
              for (int piece = 0; piece < (kScaling == Scaling::kHalves ? 2 : 1); ++piece) {
                float2 scale = unit_scales[s].of(h, piece);
                scale.y = fmaf(-Eight<kCodes>::kOffset, scale.x, scale.y);
#pragma unroll
                for (int n = 0; n < kTiles; ++n) {
#pragma unroll
                  for (int c = 0; c < 2; ++c) {
                    float part = parts[s][piece][n][2 * h + c];
                    if constexpr (one_a_unit(kScaling) && kChains == 2) part += parts[s][1][n][2 * h + c];
                    float& sum = sums[s][n][2 * h + c];
                    if constexpr (kBiases) {
                      float one = ones[piece][n][c];
                      if constexpr (one_a_unit(kScaling) && kChains == 2) one += ones[1][n][c];
                      sum = fmaf(scale.y, one, sum);
                    }
                    sum = fmaf(scale.x, part, sum);
                  }
                }
              }
            }
          }
        }
#pragma unroll
        for (int n = 0; n < kTiles; ++n) x_at[n] += 128;
        if (!kRingInputs) read(0);  // one behind the last is slack
      }

      // The warps' sums together.
      const int first = tile * 16;
      if constexpr (kSource == Source::kMix) {
        if (weight.bias != nullptr && part == 0 && t == 0) {
          if (first + g <= a.last) sums[0][0][0] += weight.bias[first + g];
          if (first + g + 8 <= a.last) sums[0][0][2] += weight.bias[first + g + 8];
        }
      }
#pragma unroll
      for (int s = 0; s < kSets; ++s) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            const int line = s * 16 + g + c / 2 * 8;
            // (0 · NaN of an expert that is none must stay 0)
            shares[(warp * kOutputs + line) * kWide + n * 8 + t * 2 + c % 2] =
                kSource == Source::kMix ? (factor == 0.0f ? 0.0f : factor * sums[s][n][c]) : sums[s][n][c];
          }
        }
      }
      if (lacks_means) {
        commit_copies();  // should the warp have had no units
        wait_copies<0>();
      }
      __syncthreads();
      const int here = kSource == Source::kMix ? 1 : min(rows - first_row, kTiles * 8);
      int parts = warps;
      if constexpr (kSplits) {
        if (!join_splits(a.splits, shares, warps, here, kOutputs, kWide)) return;
        parts = 1;
      }
      // Sixteen lanes a row; whole warps.
      for (int at = static_cast<int>(threadIdx.x); at < (here + 1) / 2 * 32;
           at += static_cast<int>(blockDim.x)) {
        const int o = at % 16, r = min(at / 16, here - 1);
        const int to = a.first_column + first + o;
        const int y = kSource == Source::kMix ? static_cast<int>(blockIdx.y) : begin + first_row + r;
        const bool row_is = at < here * 16, is = row_is && first + o <= a.last;
        float by = 1.0f;
        if (lacks_means) {
          by = factor_of(a.x.means, squares + (first_row + r) * squares_row(a.x.means));
          if (a.x.means.factors != nullptr && tile == 0 && o == 0 && row_is) a.x.means.factors[y] = by;
        } else if (kPlain && a.experts.factors != nullptr) {
          by = a.experts.factors[a.experts.rows[y]];
        } else if (kSource == Source::kChosen && a.few.factors != nullptr) {
          by = a.few.factors[y / a.few.route.used];
        }
        float sum = 0.0f, up = 0.0f, value = 0.0f, other = 0.0f;
        for (int i = 0; i < parts; ++i) {
          const float* share = shares + (i * kOutputs + o) * kWide + r;
          sum += share[0];
          if (kGated) up += share[16 * kWide];
        }
        sum *= by;
        up *= by;
        if (kSource != Source::kMix && weight.bias != nullptr && is) {
          sum += weight.bias[to];
          if (kGated) up += weight.bias[to + a.last + 1];
        }
        const bool ahead = kEnds && at == static_cast<int>(threadIdx.x) && tile == first_tile && first_row == 0;
        const auto put = [&](int column, float sum, float own_gain, float own_residual) {
          return ahead ? store(a.f, y, column, sum, {own_gain, own_residual}) : store(a.f, y, column, sum);
        };
        if (kGated && a.pairs) {
          if (is) value = put(to, activate(sum, a.f.act), gain, residual);
          if (is) other = put(to + a.last + 1, activate(up, a.f.act), other_gain, other_residual);
        } else if (is) {
          value = put(to, kGated ? gate(sum, up, a.f.act) : activate(sum, a.f.act), gain, residual);
        }
        if (a.f.squares.parts != nullptr) {
          const float part = sum_of_sixteen(value * value + other * other);
          if (o == 0 && row_is) a.f.squares.parts[static_cast<size_t>(y) * a.f.squares.stride + tile] = part;
        }
      }
      __syncthreads();  // before the next tile's
    }
  }
  if constexpr (kSource == Source::kRouter) choose_in_last_block(a.few, rows, gridDim.x, memory);
  if constexpr (kNorms) report_done(a.behind.counter);
}

}  // namespace mlxs::cuda
