// Products of a mixture's experts that have a few rows each, 4-bit codes: bound by the bytes of the chosen
// experts' weights. The tiles of all of them are one line, of which every block takes an equal piece,
// whichever experts it cuts. A team of warps shares a tile's columns; each warp keeps its columns of the
// rows in registers from the first of an expert's tiles to the last, so that weights are all that it reads,
// several units a turn, by way of a ring of shared memory (see thin.cuh for the arithmetic).
#include "backend/cuda/codes.cuh"
#include "backend/cuda/experts.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/operand.cuh"

namespace mlxs::cuda {
namespace {

constexpr int kMostWarps = 16;  // of a block
constexpr int kBlockWarps = 8;  // of one whose teams are smaller: two of these fill a multiprocessor
// A warp's sums of a tile, sixteen outputs of eight rows: [output / 8][row][output % 8], apart so that
// neither who writes nor who reads them meets in a bank.
constexpr int kSumsRow = 12, kTileSums = 2 * kTurnRows * kSumsRow;
constexpr int kUnitCodes = kUnitBytes<Codes::k4>;

// own: units of a warp, in `turns` turns.
template <int kOwn>
constexpr int kUnitsATurn = kOwn == 4 ? 2 : kOwn;
template <int kOwn, bool kGated>
constexpr int kStages = kGated      ? 3
                        : kOwn == 4 ? 5
                                    : 4;
template <bool kGated>
constexpr int kTilesARound = kGated ? 2 : 4;  // of a team, between barriers

template <Scaling kScaling, int kOwn, bool kGated>
constexpr int kStageBytes =
    kUnitsATurn<kOwn> * (kGated ? 2 : 1) * (kUnitCodes + UnitScales<kScaling>::kBytes);

__device__ inline float4 plus(const float4& a, const float4& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
}

template <Scaling kScaling, int kOwn, bool kGated>
__global__ __launch_bounds__(kMostWarps * 32, 1) void experts_kernel(const __grid_constant__ Experts a) {
  constexpr int kSets = kGated ? 2 : 1, kUnits = kUnitsATurn<kOwn>, kSplit = kOwn / kUnits;
  constexpr int kStages = mlxs::cuda::kStages<kOwn, kGated>,
                kStageBytes = mlxs::cuda::kStageBytes<kScaling, kOwn, kGated>;
  constexpr int kTilesARound = mlxs::cuda::kTilesARound<kGated>;
  constexpr int kScaleBytes = UnitScales<kScaling>::kBytes, kSetBytes = kUnits * (kUnitCodes + kScaleBytes);
  constexpr int kGroups = kScaling == Scaling::kHalves ? 2 : 1;  // of a unit
  static_assert((kStages - 1) % kSplit == 0,
                "what is fetched is the same part of a tile as what is multiplied");
  MLXS_DYNAMIC_SHARED(memory, 16);
  __shared__ Turn turns[kMostTurns + 1];  // each at its number's remainder; then what was guessed
  const int thread = kept(static_cast<int>(threadIdx.x)), lane = kept(thread % 32), warp = thread / 32,
            warps = blockDim.x / 32;
  const int g = lane / 4, t = lane % 4, team = warp / a.team, teams = warps / a.team, share = warp % a.team;
  // Without the order, blocks start with the first tiles of experts that will probably have rows.
  const bool early = a.experts.older;
  const int count = a.experts.count, guesses = a.guessed > 0 ? a.guessed / a.each : 0;  // blocks of an expert
  const int guess =
      static_cast<int>(blockIdx.x) < guesses * count ? static_cast<int>(blockIdx.x) / guesses : -1;
  const int guess_tile = guess < 0 ? 0 : static_cast<int>(blockIdx.x) % guesses * a.each;
  ExpertWeight weight{};
  if (static_cast<int>(threadIdx.x) < count) weight = a.experts.table[threadIdx.x];

  // What is fetched next.
  char* const ring = memory + warp * (kStages * kStageBytes);
  const int own_unit = share * kOwn;
  const unsigned next_codes = kept(teams * a.units * kUnitCodes),
                 next_scales = kept(teams * a.units * kScaleBytes);  // from a team's tile to its next
  const size_t next_set = static_cast<size_t>(a.tiles) * a.units;    // units from gates to ups
  int mine = 0, first_turn = 0;  // tiles of the block, and its first turn but what was guessed
  int fetch_tile = 0, fetch_end = 0, fetch_turn = 0;
  const char* codes_at = nullptr;
  const char* scales_at = nullptr;
  const auto turn_of = [&](int i) -> const Turn& {  // -1: what was guessed
    return turns[i < 0 ? kMostTurns : (first_turn + i) & (kMostTurns - 1)];
  };
  const auto fetch_from = [&](const void* codes, const void* scales, int tile) {
    const size_t unit = static_cast<size_t>(tile) * a.units + own_unit;
    codes_at = static_cast<const char*>(codes) + unit * kUnitCodes + lane * 16;
    scales_at = static_cast<const char*>(scales) + unit * kScaleBytes + lane * 16;
  };
  const auto fetch = [&](char* to, int part) {
    if (part == 0) {
      fetch_tile += teams;
      codes_at += next_codes;
      scales_at += next_scales;
      if (fetch_tile >= fetch_end && fetch_tile < mine) {
        do {
          fetch_end = turn_of(++fetch_turn).end;
        } while (fetch_tile >= fetch_end);
        const Turn& turn = turn_of(fetch_turn);
        fetch_from(turn.codes, turn.scales, turn.first_tile + fetch_tile);
      }
    }
    if (fetch_tile < mine) {
#pragma unroll
      for (int s = 0; s < kSets; ++s) {
#pragma unroll
        for (int j = 0; j < kUnits; ++j) {
          copy16(to + s * kSetBytes + j * kUnitCodes + lane * 16,
                 codes_at + (s * next_set + part * kUnits + j) * kUnitCodes);
        }
        if (lane < kUnits * kScaleBytes / 16) {
          copy16(to + s * kSetBytes + kUnits * kUnitCodes + lane * 16,
                 scales_at + (s * next_set + part * kUnits) * kScaleBytes);
        }
      }
    }
    commit_copies();
  };
  const auto fetch_first = [&](int turn, int end) {
    fetch_tile = team - teams;
    fetch_end = end;
    fetch_turn = turn;
#pragma unroll
    for (int i = 0; i < kStages; ++i) fetch(ring + i * kStageBytes, i % kSplit);
  };
  if (guess >= 0) {
    const ExpertWeight own = a.experts.table[guess];
    fetch_from(own.codes, own.scales, guess_tile + team - teams);
    mine = a.each;
    fetch_first(-1, mine);
  }
  if (!early) await_alone();

  // Of what was guessed, which rows: no need to know their places first.
  const int leading = guess >= 0 && a.experts.rows != nullptr ? a.experts.leading[guess * kTurnRows + g] : 0;
  const Piece piece = cut_piece(a, weight, guess, guess_tile, turns);
  const bool guessed = piece.guessed > 0;
  mine = piece.tiles;
  if (mine <= 0) {
    wait_copies<0>();
    return;
  }
  first_turn = piece.first_turn;
  if (!guessed) {
    wait_copies<0>();
    fetch_first(-1, 0);
  }
  if (early) await();

  char* stage = ring;
  char* free = nullptr;
  auto* const shares = reinterpret_cast<float*>(memory + warps * (kStages * kStageBytes));
  const int slots = kTilesARound * teams;  // tiles of a round
  uint4 x[kOwn][2];
  float ones[kOwn][kGroups][2];  // of each group of columns: the sums of rows 2 t and 2 t + 1
  int turn = guessed ? -2 : -1, end = 0, sum_turn = turn + 1, buffer = 0;
  bool full = true;                                          // the ring
  const int next_tile = teams * a.team * kSets * kTileSums;  // floats of `shares`
  for (int round = 0; round < mine; round += slots) {
    float* sums_to = shares + buffer * kTilesARound * next_tile +
                     (team * a.team + share) * (kSets * kTileSums) + 2 * t * kSumsRow + g;
#pragma unroll 1
    for (int i = 0; i < kTilesARound; ++i) {
      const int tile = round + i * teams + team;
      if (tile >= mine) break;
      if (tile >= end) {  // other rows
        do {
          end = turn_of(++turn).end;
        } while (tile >= end);
        const Turn& of = turn_of(turn);
        int row = of.place + min(g, of.rows - 1);  // what there are too many is not stored
        if (a.experts.rows != nullptr) {
          row = turn < 0 ? __shfl_sync(0xffffffffu, leading, 4 * min(g, of.rows - 1)) : a.experts.rows[row];
        }
        const char* from = static_cast<const char*>(a.x.data) + static_cast<size_t>(row) * a.x.stride * 2 +
                           own_unit * 128 + t * 16;
#pragma unroll
        for (int u = 0; u < kOwn; ++u) {
#pragma unroll
          for (int piece = 0; piece < 2; ++piece)
            x[u][piece] = *reinterpret_cast<const uint4*>(from + u * 128 + piece * 64);
        }
        const unsigned one[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
#pragma unroll
        for (int u = 0; u < kOwn; ++u) {
          float all[4];
#pragma unroll
          for (int piece = 0; piece < 2; ++piece) {
            const uint4 v = x[u][piece];
            piece == 0 || kGroups == 2 ? mma_first(all, one, v.x, v.y) : mma(all, one, v.x, v.y);
            mma(all, one, v.z, v.w);
            ones[u][piece * (kGroups - 1)][0] = all[0];
            ones[u][piece * (kGroups - 1)][1] = all[1];
          }
        }
      }

      float sums[kSets][4] = {};
#pragma unroll
      for (int part = 0; part < kSplit; ++part) {
        wait_copies<kStages - 2>();
        __syncwarp();  // the other lanes' copies too; and all have read what was before
        if (!full) fetch(free, part);
        full = false;
#pragma unroll
        for (int j = 0; j < kUnits; ++j) {
          const int u = part * kUnits + j;
#pragma unroll
          for (int s = 0; s < kSets; ++s) {
            const char* own = stage + s * kSetBytes;
            UnitCodes<Codes::k4> codes;
            UnitScales<kScaling> scales;
            codes.take(own + j * kUnitCodes + lane * 16);
            scales.take(own + kUnits * kUnitCodes + j * kScaleBytes +
                        UnitScales<kScaling>::lane_offset(lane));
            float products[kGroups][4];
#pragma unroll
            for (int piece = 0; piece < 2; ++piece) {
              unsigned p[2][4];
#pragma unroll
              for (int h = 0; h < 2; ++h) codes.eight(h, piece).pairs(p[h]);
              const unsigned early[4] = {p[0][0], p[1][0], p[0][1], p[1][1]};
              const unsigned late[4] = {p[0][2], p[1][2], p[0][3], p[1][3]};
              const uint4 v = x[u][piece];
              float(&to)[4] = products[piece * (kGroups - 1)];
              piece == 0 || kGroups == 2 ? mma_first(to, early, v.x, v.y) : mma(to, early, v.x, v.y);
              mma(to, late, v.z, v.w);
            }
#pragma unroll
            for (int q = 0; q < kGroups; ++q) {
#pragma unroll
              for (int h = 0; h < 2; ++h) {
                float2 scale = scales.of(h, q);
                scale.y = fmaf(-Eight<Codes::k4>::kOffset, scale.x, scale.y);
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                  float& sum = sums[s][2 * h + c];
                  sum = fmaf(scale.x, products[q][2 * h + c], fmaf(scale.y, ones[u][q][c], sum));
                }
              }
            }
          }
        }
        free = stage;
        stage = stage + kStageBytes == ring + kStages * kStageBytes ? ring : stage + kStageBytes;
      }
#pragma unroll
      for (int s = 0; s < kSets; ++s) {
#pragma unroll
        for (int c = 0; c < 4; ++c)
          sums_to[s * kTileSums + (c / 2 * kTurnRows + c % 2) * kSumsRow] = sums[s][c];
      }
      sums_to += next_tile;
    }
    __syncthreads();

    // The warps' sums together, while the next round goes to the other buffer: a warp takes all rows' eight
    // outputs, of which a lane has two that are neighbours where they go, or sixteen, a lane four.
    constexpr int kHalves = kGated ? 2 : 1;
    const int tasks = kHalves * min(slots, mine - round), row = kGated ? g : lane % kTurnRows;
    for (int task = warp; task < tasks; task += warps) {
      const int tile = round + task / kHalves;
      while (tile >= turn_of(sum_turn).end) ++sum_turn;
      const Turn& of = turn_of(sum_turn);
      if (row >= of.rows) continue;
      const float* from = shares + (buffer * slots + task / kHalves) * a.team * (kSets * kTileSums);
      if constexpr (kGated) {
        const int first = (of.first_tile + tile) * 16 + task % 2 * 8;
        from += (task % 2 * kTurnRows + row) * kSumsRow;
        float sum[2] = {}, up[2] = {};
        for (int w = 0; w < a.team; ++w, from += 2 * kTileSums) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            sum[i] += from[t + 4 * i];
            up[i] += from[kTileSums + t + 4 * i];
          }
        }
        if (a.experts.factors != nullptr) {
          const float by = a.experts.factors[a.experts.rows[of.place + row]];
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            sum[i] *= by;
            up[i] *= by;
          }
        }
        if (of.bias != nullptr) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            sum[i] += of.bias[first + t + 4 * i];
            up[i] += of.bias[a.tiles * 16 + first + t + 4 * i];
          }
        }
        auto* to = static_cast<__nv_bfloat16*>(a.f.operand.data) +
                   static_cast<size_t>(of.place + row) * a.f.operand.stride + first + 2 * t;
        *reinterpret_cast<__nv_bfloat162*>(to) =
            __floats2bfloat162_rn(gate(sum[0], up[0], a.f.act), gate(sum[1], up[1], a.f.act));
      } else {
        const int four = lane / kTurnRows, first = (of.first_tile + tile) * 16 + four * 4;
        from += (four / 2 * kTurnRows + row) * kSumsRow + four % 2 * 4;
        float4 sum{};
        for (int w = 0; w < a.team; ++w, from += kTileSums)
          sum = plus(sum, *reinterpret_cast<const float4*>(from));
        if (a.experts.factors != nullptr) {
          const float by = a.experts.factors[a.experts.rows[of.place + row]];
          sum = {by * sum.x, by * sum.y, by * sum.z, by * sum.w};
        }
        if (of.bias != nullptr) {
          const float* bias = of.bias + first;
          sum = plus(sum, {bias[0], bias[1], bias[2], bias[3]});
        }
        *reinterpret_cast<float4*>(a.f.y + static_cast<size_t>(of.place + row) * a.f.columns + first) = sum;
      }
    }
    buffer ^= 1;
  }
  wait_copies<0>();
}

// How a tile's columns are shared: so that two blocks' warps, or one's, are sixteen or nearly.
struct Team {
  int size = 0, own = 0;  // warps, and units of each; 0: not at all
  int block_warps() const { return size > kBlockWarps ? size : kBlockWarps / size * size; }
  int warps() const { return size > kBlockWarps ? size : 2 * block_warps(); }
};

template <Scaling kScaling, int kOwn, bool kGated>
size_t shared_bytes(const Team& team) {
  const int warps = team.block_warps();
  return static_cast<size_t>(warps) * kStages<kOwn, kGated> * kStageBytes<kScaling, kOwn, kGated> +
         static_cast<size_t>(2 * kTilesARound<kGated>) * warps * (kGated ? 2 : 1) * kTileSums * 4;
}
template <Scaling kScaling, bool kGated>
size_t team_bytes(const Team& team) {
  return team.own == 4   ? shared_bytes<kScaling, 4, kGated>(team)
         : team.own == 3 ? shared_bytes<kScaling, 3, kGated>(team)
                         : shared_bytes<kScaling, 2, kGated>(team);
}

// The best one whose block has room.
Team team_of(const Rows& w, bool gated) {
  const auto bytes_of =
      w.group_shift >= 6
          ? (gated ? team_bytes<Scaling::kUnits, true> : team_bytes<Scaling::kUnits, false>)
          : (gated ? team_bytes<Scaling::kHalves, true> : team_bytes<Scaling::kHalves, false>);
  const int units = w.padded / 64;
  Team best;
  for (const int own : {4, 3, 2}) {
    const Team team{units / own, own};
    if (units % own != 0 || team.size > kMostWarps || bytes_of(team) > most_shared()) continue;
    if (best.own == 0 || team.warps() > best.warps()) best = team;
  }
  return best;
}

template <Scaling kScaling, int kOwn, bool kGated>
void start(cudaStream_t stream, Experts a, const Team& team, int multiprocessors) {
  constexpr auto kKernel = experts_kernel<kScaling, kOwn, kGated>;
  allow_shared<kKernel>(most_shared());
  // At most so many turns; each block has room for its share of them.
  const int most = min(a.experts.count, a.experts.places) + a.experts.places / kTurnRows;
  const int wanted = team.size > kBlockWarps ? multiprocessors : 2 * multiprocessors;
  const int blocks = max(min(wanted, most * a.tiles), (most + kMostTurns - 3) / (kMostTurns - 2));
  // Where most experts have rows: of so many places on average, five sevenths.
  if (!a.experts.older && blocks >= a.experts.count && 4 * a.experts.places >= 5 * a.experts.count) {
    // A team's first tiles, as many as the ring begins; of an expert at most the half.
    constexpr int kParts = kOwn / kUnitsATurn<kOwn>, kFirst = (kStages<kOwn, kGated> + kParts - 1) / kParts;
    a.each = team.block_warps() / team.size * kFirst;
    a.guessed = min(blocks / a.experts.count, a.tiles / 2 / a.each) * a.each;
    if ((most * a.tiles / blocks + 1) / (a.tiles - a.guessed) + 3 > kMostTurns) a.guessed = 0;
  }
  launch_early(kKernel, dim3(blocks), 32 * team.block_warps(), shared_bytes<kScaling, kOwn, kGated>(team),
               stream, a);
}

template <Scaling kScaling, int kOwn>
void start(cudaStream_t stream, const Experts& a, const Team& team, int multiprocessors) {
  if (a.f.gated) return start<kScaling, kOwn, true>(stream, a, team, multiprocessors);
  start<kScaling, kOwn, false>(stream, a, team, multiprocessors);
}

template <Scaling kScaling>
void start(cudaStream_t stream, const Experts& a, const Team& team, int multiprocessors) {
  if (team.own == 4) return start<kScaling, 4>(stream, a, team, multiprocessors);
  if (team.own == 3) return start<kScaling, 3>(stream, a, team, multiprocessors);
  start<kScaling, 2>(stream, a, team, multiprocessors);
}

}  // namespace

bool takes_experts(const Rows& w, const Finish& f, int places, int count) {
  if (w.type != Codes::k4 || w.group_shift < 5 || 2 * places > kTurnRows * count) return false;
  // Gated ones to the next product, the others to rows.
  if (f.residual != nullptr || f.soft_cap != 0 || w.rows % (f.gated ? 32 : 16) != 0) return false;
  if (f.gated ? f.y != nullptr || f.operand.wide : f.operand.data != nullptr || f.act != Act::kNone)
    return false;
  return team_of(w, f.gated).own != 0;
}

void expert_rows(cudaStream_t stream, const Rows& w, const Operand& x, const Finish& f,
                 const ExpertRows& experts, int multiprocessors) {
  const Team team = team_of(w, f.gated);
  const Experts a{w, x, experts, f, w.padded / 64, team.size, w.rows / (f.gated ? 32 : 16)};
  if (w.group_shift >= 6) return start<Scaling::kUnits>(stream, a, team, multiprocessors);
  start<Scaling::kHalves>(stream, a, team, multiprocessors);
}

}  // namespace mlxs::cuda
