#include "backend/cpu/linear.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/output_panels.h"

namespace mlxs::cpu {
namespace {

// Rows of input handled by one item of a parallel region over rows; fewer elements than kSerial are not worth
// a region.
constexpr std::int64_t kSerialElements = 10240;

template <class Task>
void for_rows(ThreadPool& pool, int rows, std::int64_t columns, int grain, Task&& task) {
  if (rows * columns <= kSerialElements) {
    task(std::int64_t{0}, std::int64_t{rows}, 0);
  } else {
    pool.parallel_shares(rows, grain, task);
  }
}

// ---------------------------------------------------------------- few rows, or no tiles: dot products

// The rows as the dot kernels of a weight's formats want them; a stacked weight may need both forms.
struct DotInputs {
  QuantizedRows quantized;
  const float* floats = nullptr;
  std::size_t float_stride = 0;
};

void dot_panel(const LinearKernels& kernels, const Segment& segment, const PanelView& view,
               const DotInputs& in, int row, int rows, float* sums) {
  const auto index = static_cast<std::size_t>(segment.packing);
  if (kernels.dot[index] != nullptr) {
    kernels.dot[index](view, in.quantized.from(row), rows, sums);
  } else {
    kernels.dot_floats[index](view, in.floats + static_cast<std::size_t>(row) * in.float_stride,
                              in.float_stride, rows, sums);
  }
}

void multiply_dots(ThreadPool& pool, const LinearKernels& kernels, StepArena& arena, const CpuWeight& weight,
                   const LinearInput& in, const Epilogue& epilogue, bool gated, const NextWeight& next) {
  const auto padded_columns = static_cast<std::size_t>(blocks_of(weight.columns())) * kBlock;
  const auto rows = static_cast<std::size_t>(in.rows);
  bool want_quantized = false, want_floats = false;
  for (const Segment& segment : weight.segments()) {
    const bool quantized = kernels.dot[static_cast<std::size_t>(segment.packing)] != nullptr;
    want_quantized |= quantized;
    want_floats |= !quantized;
  }
  // y may overwrite x (a residual that is also the input), so then the product needs a copy.
  const bool copy_floats = want_floats && (in.norm.kind != RowNorm::Kind::kNone ||
                                           weight.columns() % kBlock != 0 || epilogue.y == in.x);

  const std::size_t stride = static_cast<std::size_t>(blocks_of(weight.columns())) | 1;
  const std::size_t blocks = want_quantized ? (rows + kPadRows) * stride : 0;
  const ScratchBlock code_block(arena, blocks * 64);
  const ScratchBlock sum_block(arena, blocks * sizeof(BlockSums));
  const ScratchBlock scale_block(arena, (rows + kPadRows) * sizeof(float));
  const ScratchBlock float_block(arena, copy_floats ? rows * padded_columns * sizeof(float) : 0);
  const QuantizedRows quantized{static_cast<std::int8_t*>(code_block.data()),
                                static_cast<BlockSums*>(sum_block.data()),
                                static_cast<float*>(scale_block.data()), stride};
  auto* floats = static_cast<float*>(float_block.data());
  const DotInputs inputs{quantized, copy_floats ? floats : in.x, copy_floats ? padded_columns : in.stride};
  for_rows(pool, in.rows, weight.columns(), 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (auto row = static_cast<std::size_t>(begin); row < static_cast<std::size_t>(end); ++row) {
      const float* x = in.x + row * in.stride;
      if (want_quantized) kernels.quantize(x, weight.columns(), in.norm, quantized, static_cast<int>(row));
      if (copy_floats) {
        kernels.normalize(x, weight.columns(), in.norm, floats + row * padded_columns,
                          static_cast<std::int64_t>(padded_columns));
      }
    }
  });
  if (want_quantized) {
    std::memset(quantized.block(in.rows, 0), 0, kPadRows * stride * 64);
    std::memset(&quantized.sum(in.rows, 0), 0, kPadRows * stride * sizeof(BlockSums));
    std::memset(quantized.scales + rows, 0, kPadRows * sizeof(float));
  }

  const OutputPanels panels(weight, gated, next);
  // Each thread walks its own run of panels, which it prefetches along; small items let the last ones be
  // shared.
  const std::int64_t grain = std::clamp<std::int64_t>(panels.size() / (pool.threads() * 32), 1, 16);
  const int calls = (in.rows + kernels.rows_at_once - 1) / kernels.rows_at_once;
  const int share = (in.rows + calls - 1) / calls;
  pool.parallel_shares(panels.size(), grain, [&](std::int64_t begin, std::int64_t end, int) {
    alignas(64) float sums[kMostDotRows * kLanes], up[kMostDotRows * kLanes];
    const ThreadPool::Share my_share = pool.share_of(panels.size(), grain, begin);
    for (std::int64_t i = begin; i < end; ++i) {
      const OutputPanel panel = panels.at(i, my_share);
      for (int row = 0; row < in.rows; row += share) {
        const int count = std::min(share, in.rows - row);
        dot_panel(kernels, *panel.segment, panel.view, inputs, row, count, sums);
        if (gated) dot_panel(kernels, *panel.up_segment, panel.up, inputs, row, count, up);
        kernels.finish(epilogue, {sums, gated ? up : nullptr, kLanes, row, count, panel.column, panel.count});
      }
    }
  });
}

// ---------------------------------------------------------------- many rows: tiles

// Input tiles of a chunk of k that stay in the L2 cache while weights pass by, and the work that shares one
// unpacking.
constexpr std::size_t kInputChunkBytes = std::size_t{1} << 20;
constexpr int kStreamTiles = 4;  // row tiles up to which weights are unpacked again for every two (measured)
constexpr int kSplitTiles = 8;   // row tiles a thread from which on each thread takes its own rows
constexpr int kGroupPairs = 4;   // pairs of panels that share a chunk of inputs, if k does not fit one chunk

bool has_tiles(const TileKernels& tiles, const CpuWeight& weight) {
  return std::ranges::all_of(weight.segments(), [&](const Segment& segment) {
    return tiles.weights[static_cast<std::size_t>(segment.packing)] != nullptr;
  });
}

// What a thread multiplies in between has its tiles configured.
struct WithTiles {
  const TileKernels& tiles;
  void operator()(auto&& work) const {
    tiles.begin();
    work();
    tiles.end();
  }
};

// The rows as A tiles.
struct TileInputs {
  const std::uint16_t* a = nullptr;
  std::size_t stride = 0;  // elements from row tile to row tile
};

// Few row tiles: each pair of panels is unpacked and multiplied in one pass for every two of them.
void stream_tiles(ThreadPool& pool, const LinearPath& path, const CpuWeight& weight, const TileInputs& x,
                  int rows, const Epilogue& epilogue, bool gated, const NextWeight& next) {
  const TileKernels& tiles = *path.tiles;
  const OutputPanels panels(weight, gated, next);
  const int pairs = gated ? panels.size() : (panels.size() + 1) / 2;
  // Four stretches a thread: shorter ones cost more in between than they even out (measured).
  const std::int64_t grain = std::clamp<std::int64_t>(pairs / (pool.threads() * 4), 1, 8);
  pool.parallel_shares(pairs, grain, WithTiles{tiles}, [&](std::int64_t begin, std::int64_t end, int) {
    constexpr int kRows = 2 * kTileRows;
    alignas(64) float sums[kRows * 2 * kLanes];
    ThreadPool::Share share = pool.share_of(pairs, grain, begin);
    if (!gated) share.end = std::min<std::int64_t>(2 * share.end, panels.size());
    for (std::int64_t pair = begin; pair < end; ++pair) {
      const OutputPanel left = panels.at(gated ? pair : 2 * pair, share);
      const bool two = gated || 2 * pair + 1 < panels.size();
      const OutputPanel second = !gated && two ? panels.at(2 * pair + 1, share) : left;
      const PanelView& right = gated ? left.up : second.view;
      const Packing packing = left.segment->packing;
      const Packing right_packing = gated ? left.up_segment->packing : second.segment->packing;
      const auto stream = tiles.stream[static_cast<std::size_t>(packing)];
      const auto stream_right = tiles.stream[static_cast<std::size_t>(right_packing)];
      for (int first = 0; first < rows; first += kRows) {
        const int count = std::min(kRows, rows - first);
        const int row_tiles = (count + kTileRows - 1) / kTileRows;
        const std::uint16_t* a = x.a + static_cast<std::size_t>(first / kTileRows) * x.stride;
        if (packing == right_packing) {
          stream(left.view, two ? &right : nullptr, a, x.stride, row_tiles, sums);
        } else {
          stream(left.view, nullptr, a, x.stride, row_tiles, sums);
          stream_right(right, nullptr, a, x.stride, row_tiles, sums + kLanes);
        }
        const auto finish = [&](const OutputPanel& panel, const float* of, const float* up) {
          path.dots->finish(epilogue, {of, up, 2 * kLanes, first, count, panel.column, panel.count});
        };
        finish(left, sums, gated ? sums + kLanes : nullptr);
        if (!gated && two) finish(second, sums + kLanes, nullptr);
      }
    }
  });
}

void multiply_tiles(ThreadPool& pool, const LinearPath& path, StepArena& arena, const CpuWeight& weight,
                    const LinearInput& in, const Epilogue& epilogue, bool gated, const NextWeight& next) {
  const TileKernels& tiles = *path.tiles;
  const int blocks = blocks_of(weight.columns());
  const int row_tiles = (in.rows + kTileRows - 1) / kTileRows;
  const auto a_stride = static_cast<std::size_t>(blocks) * kTileElements;  // of a row tile
  const ScratchBlock input(arena, static_cast<std::size_t>(row_tiles) * a_stride * sizeof(std::uint16_t));
  auto* a = static_cast<std::uint16_t*>(input.data());
  for_rows(pool, row_tiles * kTileRows, weight.columns(), row_tiles >= kSplitTiles ? kTileRows : 4,
           [&](std::int64_t begin, std::int64_t end, int) {
             for (auto row = static_cast<std::size_t>(begin); row < static_cast<std::size_t>(end); ++row) {
               const float* x = row < static_cast<std::size_t>(in.rows) ? in.x + row * in.stride : nullptr;
               tiles.input_row(x, weight.columns(), in.norm,
                               a + row / kTileRows * a_stride + row % kTileRows * kBlock);
             }
           });
  if (row_tiles <= kStreamTiles) {
    return stream_tiles(pool, path, weight, {a, a_stride}, in.rows, epilogue, gated, next);
  }

  // A pair is two columns of tiles: two neighbouring panels, or a gate panel and its up panel.
  const OutputPanels panels(weight, gated);
  const int pairs = gated ? panels.size() : (panels.size() + 1) / 2;
  // Many rows: every thread takes its share of them through all weights. Weights are unpacked once a thread,
  // but inputs, sums and outputs stay in its own cache from one product to the next (1.3 times as fast).
  // Else, few outputs: split the rows until there is work for all.
  int row_parts = row_tiles >= kSplitTiles * pool.threads() ? pool.threads() : 1;
  while (pairs / kGroupPairs * row_parts < 2 * pool.threads() && row_tiles / row_parts >= 16) row_parts *= 2;
  const int part_tiles = ((row_tiles + row_parts - 1) / row_parts + 1) / 2 * 2;
  const int chunk = std::clamp(
      static_cast<int>(kInputChunkBytes / (static_cast<std::size_t>(part_tiles) * kTileElements * 2)), 8,
      blocks);
  const int group = chunk < blocks ? kGroupPairs : 1;
  const int groups = (pairs + group - 1) / group;

  const std::size_t weight_elements = static_cast<std::size_t>(chunk) * kTileElements;  // of one panel
  const std::size_t sum_floats =
      static_cast<std::size_t>(part_tiles) * kTileRows * 2 * kLanes;  // of one pair
  const std::size_t scratch_bytes = 2 * weight_elements * sizeof(std::uint16_t) +
                                    static_cast<std::size_t>(group) * sum_floats * sizeof(float);
  const ScratchBlock scratch(arena, scratch_bytes * static_cast<std::size_t>(pool.threads()));

  pool.parallel_shares(
      static_cast<std::int64_t>(groups) * row_parts, 1, WithTiles{tiles},
      [&](std::int64_t begin, std::int64_t end, int worker) {
        auto* b0 = reinterpret_cast<std::uint16_t*>(static_cast<std::byte*>(scratch.data()) +
                                                    static_cast<std::size_t>(worker) * scratch_bytes);
        auto* b1 = b0 + weight_elements;
        auto* sums = reinterpret_cast<float*>(b1 + weight_elements);
        for (std::int64_t item = begin; item < end; ++item) {
          const int first_tile = static_cast<int>(item / groups) * part_tiles;
          const int count_tiles = std::min(part_tiles, row_tiles - first_tile);
          const int first_pair = static_cast<int>(item % groups) * group;
          const int count_pairs = std::min(group, pairs - first_pair);
          if (count_tiles <= 0) continue;
          const auto second = [&](int pair) { return gated || 2 * pair + 1 < panels.size(); };
          for (int k = 0; k < blocks; k += chunk) {
            const int count = std::min(chunk, blocks - k);
            for (int p = 0; p < count_pairs; ++p) {
              const int pair = first_pair + p;
              const OutputPanel left = panels.at(gated ? pair : 2 * pair);
              const OutputPanel right = !gated && second(pair) ? panels.at(2 * pair + 1) : OutputPanel{};
              tiles.weights[static_cast<std::size_t>(left.segment->packing)](left.view, k, count, b0);
              if (gated) {
                tiles.weights[static_cast<std::size_t>(left.up_segment->packing)](left.up, k, count, b1);
              } else if (second(pair)) {
                tiles.weights[static_cast<std::size_t>(right.segment->packing)](right.view, k, count, b1);
              }
              // Two row tiles at a time: their sums are finished while they are in the L1 cache.
              for (int tile = first_tile; tile < first_tile + count_tiles; tile += 2) {
                const int some = std::min(2, first_tile + count_tiles - tile);
                float* sum = sums;
                if (chunk < blocks) {
                  sum += static_cast<std::size_t>(p) * sum_floats +
                         static_cast<std::size_t>(tile - first_tile) * kTileRows * 2 * kLanes;
                }
                tiles.multiply(a + static_cast<std::size_t>(tile) * a_stride +
                                   static_cast<std::size_t>(k) * kTileElements,
                               a_stride, some, count, b0, second(pair) ? b1 : nullptr, sum, k > 0);
                if (k + count < blocks) continue;
                const int first_row = tile * kTileRows;
                const int rows = std::min(some * kTileRows, in.rows - first_row);
                path.dots->finish(epilogue, {sum, gated ? sum + kLanes : nullptr, 2 * kLanes, first_row, rows,
                                             left.column, left.count});
                if (!gated && second(pair)) {
                  path.dots->finish(epilogue, {sum + kLanes, nullptr, 2 * kLanes, first_row, rows,
                                               right.column, right.count});
                }
              }
            }
          }
        }
      });
}

void multiply(ThreadPool& pool, const LinearPath& path, StepArena& arena, const CpuWeight& weight,
              const LinearInput& in, const Epilogue& epilogue, bool gated, const NextWeight& next) {
  if (path.tiles != nullptr && in.rows >= path.tile_rows && has_tiles(*path.tiles, weight)) {
    multiply_tiles(pool, path, arena, weight, in, epilogue, gated, next);
  } else {
    multiply_dots(pool, *path.dots, arena, weight, in, epilogue, gated, next);
  }
}

}  // namespace

LinearPath linear_path(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAmx:
      return {&linear_amx(), &tiles_amx()};
    case Isa::kAvx512:
      return {&linear_avx512(), nullptr};
    case Isa::kAvx2:
      return {&linear_avx2(), nullptr};
    case Isa::kPortable:
      break;
  }
#else
  (void)isa;
#endif
  return {&linear_portable(), nullptr};
}

void linear(ThreadPool& pool, const LinearPath& path, StepArena& arena, const CpuWeight& weight,
            const LinearInput& in, const LinearOutput& out, const NextWeight& next) {
  if (in.rows == 0) return;
  const std::int64_t half = weight.rows() / 2;
  Epilogue epilogue{.y = out.y,
                    .y_stride = out.stride,
                    .bias = out.bias,
                    .residual = out.residual,
                    .residual_stride = out.residual_stride,
                    .activation = out.activation,
                    .soft_cap = out.soft_cap};
  if (!out.gated || OutputPanels::paired(weight)) {
    if (out.gated && out.bias != nullptr) epilogue.up_bias = out.bias + half;
    return multiply(pool, path, arena, weight, in, epilogue, out.gated, next);
  }
  // Gate and up share a panel: all sums first, then the epilogue over pairs of them.
  const auto all = static_cast<std::size_t>(weight.rows());
  const ScratchBlock scratch(arena, static_cast<std::size_t>(in.rows) * all * sizeof(float));
  auto* sums = static_cast<float*>(scratch.data());
  multiply(pool, path, arena, weight, in, {.y = sums, .y_stride = all, .bias = out.bias}, false, next);
  epilogue.bias = nullptr;
  alignas(64) float gate[kLanes] = {}, up[kLanes] = {};
  for (int row = 0; row < in.rows; ++row) {
    const float* at = sums + static_cast<std::size_t>(row) * all;
    for (std::int64_t column = 0; column < half; column += kLanes) {
      const auto count = static_cast<int>(std::min<std::int64_t>(kLanes, half - column));
      std::copy_n(at + column, count, gate);
      std::copy_n(at + half + column, count, up);
      path.dots->finish(epilogue, {gate, up, kLanes, row, 1, static_cast<int>(column), count});
    }
  }
}

void normalize(ThreadPool& pool, const LinearPath& path, const LinearInput& in, std::int64_t columns,
               float* y, std::size_t y_stride) {
  for_rows(pool, in.rows, columns, 4, [&](std::int64_t begin, std::int64_t end, int) {
    for (auto row = static_cast<std::size_t>(begin); row < static_cast<std::size_t>(end); ++row) {
      path.dots->normalize(in.x + row * in.stride, columns, in.norm, y + row * y_stride, columns);
    }
  });
}

}  // namespace mlxs::cpu
