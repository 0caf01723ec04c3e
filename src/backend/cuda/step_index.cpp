#include "backend/cuda/step_index.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <span>
#include <utility>

namespace mlxs::cuda {
namespace {

constexpr std::size_t kLeast = std::size_t{1}
                               << 20;  // bytes: a quarter of a million pages before anything moves

// The rows' adjustments to `to`, their items to items[first] and on.
void copy_items(std::span<const SampleRow> rows, std::span<const Adjustment> adjusted, Adjustment* to,
                AdjustItem* items, std::size_t first) {
  static_assert(sizeof(TokenBias) == sizeof(AdjustItem) && sizeof(TokenCount) == sizeof(AdjustItem));
  for (std::size_t i = 0; i < adjusted.size(); ++i) {
    Adjustment own = adjusted[i];
    own.first = static_cast<int>(first);
    const auto copy = [&](const void* from, int count) {
      if (count == 0) return;
      std::memcpy(items + first, from, static_cast<std::size_t>(count) * sizeof(AdjustItem));
      first += static_cast<std::size_t>(count);
    };
    if (own.biases > 0) copy(rows[i].bias.data(), own.biases);
    if (own.counts > 0) copy(rows[i].counts.data(), own.counts);
    to[i] = own;
  }
}

}  // namespace

bool StepIndex::begin(const Batch& batch, std::span<const Draw> draws, std::span<const Adjustment> adjusted,
                      int num_rows, int longest, int turn, cudaStream_t stream) {
  tables_.clear();
  const auto rows = static_cast<std::size_t>(num_rows);
  std::size_t pages = 0;
  for (const SequenceSpan& s : batch.sequences) pages += s.pages.size() + s.window_pages.size();
  std::size_t tiles = rows - batch.tokens.size();
  for (const SequenceSpan& s : batch.sequences)
    tiles += static_cast<std::size_t>((s.num_rows + kTileRows - 1) / kTileRows);
  // tokens, positions, first pages, lengths, sampled rows, first window pages and the turn; draws and
  // adjustments; then tiles, pages (a sequence's, then its window pages), fed rows and the adjustments'
  // items, whose number differs.
  const std::size_t draw_ints = draws.size_bytes() / sizeof(int),
                    adjusted_ints = adjusted.size_bytes() / sizeof(int);
  std::size_t items = 0;
  for (const Adjustment& a : adjusted) items += static_cast<std::size_t>(a.biases + a.counts);
  const std::size_t first_item =
      (6 * rows + 2 + draw_ints + adjusted_ints + 2 * tiles + pages + batch.fed.size() + 1) / 2;
  const std::size_t bytes = (first_item + items) * sizeof(AdjustItem);
  auto* host = reinterpret_cast<int*>(staging_[turn].reserve(std::max(kLeast, bytes)));
  const bool moves = bytes > device_.bytes();
  if (moves) {
    check(cudaStreamSynchronize(stream), "the step before");
    device_ = DeviceBuffer(std::max(kLeast, std::bit_ceil(bytes)), "a step's rows");
  }
  auto* device = reinterpret_cast<int*>(device_.data());

  const auto array = [&](int* base, std::size_t index) { return base + index * rows; };
  std::fill(host, array(host, 6), 0);
  std::fill(array(host, 1), array(host, 2), -1);
  std::ranges::copy(batch.tokens, host);
  std::ranges::copy(batch.positions, array(host, 1));
  *array(host, 6) = turn;
  int* const first_draw = array(host, 6) + 2;  // pairs are aligned
  int* const first_adjusted = first_draw + draw_ints;
  int* const first_tile = first_adjusted + adjusted_ints;
  static_assert(sizeof(Draw) % 8 == 0);
  std::ranges::copy(draws, reinterpret_cast<Draw*>(first_draw));
  copy_items(batch.sampling, adjusted, reinterpret_cast<Adjustment*>(first_adjusted),
             reinterpret_cast<AdjustItem*>(host), first_item);
  int* const first_page = first_tile + 2 * tiles;
  int* page = first_page;
  int* tile = first_tile;
  for (const SequenceSpan& s : batch.sequences) {
    for (int from = 0; from < s.num_rows; from += kTileRows) {
      *tile++ = s.first_row + from;
      *tile++ = std::min(kTileRows, s.num_rows - from);
    }
  }
  if (batch.tokens.size() > batch.sequences.size()) {
    using Tile = std::array<int, 2>;
    static_assert(sizeof(Tile) == 2 * sizeof(int));
    const std::span<Tile> all(reinterpret_cast<Tile*>(first_tile),
                              static_cast<std::size_t>(tile - first_tile) / 2);
    std::ranges::sort(all, std::greater{}, [&](const Tile& t) {  // the blocks that see most begin first
      return std::pair(batch.positions[static_cast<std::size_t>(t[0])] + t[1], -t[0]);
    });
  }
  std::fill(tile, first_page, 0);
  for (const SequenceSpan& s : batch.sequences) {
    for (int i = 0; i < s.num_rows; ++i) {
      array(host, 2)[s.first_row + i] = static_cast<int>(page - first_page);
      array(host, 3)[s.first_row + i] = s.start + s.num_rows;
      array(host, 5)[s.first_row + i] = static_cast<int>(page - first_page + std::ssize(s.pages));
    }
    page = std::ranges::copy(s.pages, page).out;
    page = std::ranges::copy(s.window_pages, page).out;
  }
  std::ranges::copy(batch.sampled_rows, array(host, 4));
  std::ranges::copy(batch.fed, page);
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream), "a step's rows");
  tokens_ = device;
  rows_.positions = array(device, 1);
  rows_.first_page = array(device, 2);
  rows_.lengths = array(device, 3);
  sampled_ = array(device, 4);
  turn_ = array(device, 6);
  draws_ = reinterpret_cast<const Draw*>(device + (first_draw - host));
  adjustments_ = {.rows = reinterpret_cast<const Adjustment*>(device + (first_adjusted - host)),
                  .items = reinterpret_cast<const AdjustItem*>(device),
                  .tokens = tokens_,
                  .sampled = sampled_};
  fed_ = batch.fed.empty() ? nullptr : device + (page - host);
  rows_.tiles = device + (first_tile - host);
  rows_.num_tiles = static_cast<int>(tiles);
  rows_.pages = device + (first_page - host);
  rows_.rows = num_rows;
  rows_.longest = longest;
  window_rows_ = rows_;
  window_rows_.first_page = array(device, 5);
  return moves;
}

Rotation StepIndex::rotation(const RopeSpec& rope, StepMemory& memory, cudaStream_t stream) {
  if (rope.dims == 0) return {};
  std::vector<float> key(rope.inverse_frequencies.begin(), rope.inverse_frequencies.end());
  auto found = frequencies_.find(key);
  if (found == frequencies_.end()) {
    DeviceBuffer buffer = uploaded(std::as_bytes(std::span(key)), "rotation frequencies");
    found = frequencies_.emplace(std::move(key), std::move(buffer)).first;
  }
  void*& table = tables_[{found->second.data(), rope.magnitude}];
  if (table == nullptr) {
    const auto half = static_cast<std::size_t>(rope.dims) / 2;
    table = memory.allocate(static_cast<std::size_t>(rows_.rows) * half * 2 * sizeof(float));
    make_rotation(stream, rows_.positions, reinterpret_cast<const float*>(found->second.data()), rows_.rows,
                  rope.dims, rope.magnitude, table);
  }
  return {.table = table, .dims = rope.dims, .interleaved = rope.interleaved};
}

}  // namespace mlxs::cuda
