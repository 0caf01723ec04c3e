// What a step's rows are drawn from, and by whom: the GPU, by kernels that its graph has, or the CPU's
// sampler for the few rows that want more than those know.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <optional>

#include "backend/cpu/sample_random.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/op_specs.h"

namespace mlxs::cuda {
namespace {

bool penalizes(const SampleRow& row) {
  return (row.repetition_penalty != 1.0f || row.presence_penalty != 0.0f || row.frequency_penalty != 0.0f) &&
         (!row.counts.empty() || row.counts_own);
}
bool adjusts(const SampleRow& row) { return penalizes(row) || !row.bias.empty() || !row.allowed.empty(); }

Adjustment adjustment_of(const SampleRow& row) {
  Adjustment adjustment{.biases = static_cast<int>(row.bias.size())};
  if (!penalizes(row)) return adjustment;
  adjustment.counts = static_cast<int>(row.counts.size());
  adjustment.own = row.counts_own ? 1 : 0;
  adjustment.repetition = row.repetition_penalty;
  adjustment.presence = row.presence_penalty;
  adjustment.frequency = row.frequency_penalty;
  return adjustment;
}
bool adjusts(const Adjustment& a) { return a.biases + a.counts + a.own + a.mask > 0; }

Draw draw_of(const SampleRow& row) {
  return {
      .top_k = row.top_k,
      .factor = std::min(std::numbers::log2e_v<float> / row.temperature, std::numeric_limits<float>::max()),
      .top_p = row.top_p,
      .least = row.min_p > 0.0f ? std::log2(row.min_p) : std::numeric_limits<float>::lowest(),
      .uniform = cpu::uniform_draw(row.seed, row.draw)};
}

}  // namespace

bool CudaBackend::draws_on_device(const SampleRow& row) const { return row.top_logprobs <= kMostBest; }

void CudaBackend::announce(std::span<const SampleRow> rows, Turn& turn) const {
  turn.draws.clear();
  turn.adjusted.clear();
  turn.finds_best = turn.masked = false;
  turn.room = nullptr;
  if (rows.size() > kMostPicks) return;
  int masks = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const SampleRow& row = rows[i];
    if (!draws_on_device(row)) continue;
    if (row.temperature > 0.0f) {
      turn.draws.resize(rows.size());
      turn.draws[i] = draw_of(row);
    }
    if (adjusts(row)) {
      turn.adjusted.resize(rows.size());
      turn.adjusted[i] = adjustment_of(row);
      if (!row.allowed.empty()) turn.adjusted[i].mask = ++masks;
    }
    // Log probabilities are those of logits that are not adjusted: what those would give is found first.
    turn.finds_best = turn.finds_best || row.top_logprobs > 0 || (row.top_logprobs == 0 && adjusts(row));
  }
  turn.masked = masks > 0;
}

bool CudaBackend::drawn_here(const Turn& turn, std::size_t row) const {
  const SampleRow& wanted = turn.sampling[row];
  if (turn.sampling.size() > kMostPicks || !draws_on_device(wanted)) return false;
  if (row < turn.adjusted.size() ? adjusts(turn.adjusted[row]) != adjusts(wanted) : adjusts(wanted))
    return false;
  return (wanted.top_logprobs <= 0 || turn.finds_best) &&
         (wanted.temperature <= 0.0f || (row < turn.draws.size() && turn.draws[row].factor != 0.0f));
}

CudaBackend::SampleRoom CudaBackend::room_of(const Turn& turn, int rows, int columns) {
  SampleRoom room;
  const auto take = [&](std::size_t bytes) {
    const std::size_t at = room.bytes;
    room.bytes += (bytes + 255) / 256 * 256;
    return at;
  };
  const auto count = static_cast<std::size_t>(rows);
  room.parts = take(count * kGreedyParts * 16);
  if (turn.finds_best) room.found = take(best_bytes(rows));
  if (turn.finds_best && !turn.adjusted.empty()) {
    room.highest = take(count * sizeof(Pick));
    room.adjusted = take(count * static_cast<std::size_t>(columns) * sizeof(float));
  }
  if (!turn.draws.empty()) room.draws = take(draw_bytes(rows, columns));
  return room;
}

void CudaBackend::send_masks(Turn& turn, int columns) {
  const auto words = static_cast<std::size_t>(mask_words(columns));
  const auto count = static_cast<std::size_t>(
      std::ranges::count_if(turn.adjusted, [](const Adjustment& a) { return a.mask > 0; }));
  const std::size_t bytes = count * words * sizeof(std::uint32_t);
  if (bytes > masks_.bytes()) {
    check(cudaStreamSynchronize(stream_.get()), "the step before");
    masks_ = DeviceBuffer(std::bit_ceil(bytes), "masks");
  }
  auto* const host = reinterpret_cast<std::uint32_t*>(turn.masks.reserve(std::bit_ceil(bytes)));
  for (std::size_t i = 0; i < turn.sampling.size(); ++i) {
    if (turn.adjusted[i].mask == 0) continue;
    const std::span<const std::uint32_t> allowed = turn.sampling[i].allowed;
    std::uint32_t* const to = host + static_cast<std::size_t>(turn.adjusted[i].mask - 1) * words;
    // A mask shorter than the vocabulary allows no more.
    std::fill(std::ranges::copy(allowed.first(std::min(allowed.size(), words)), to).out, to + words, 0u);
  }
  check(cudaMemcpyAsync(masks_.data(), host, bytes, cudaMemcpyHostToDevice, stream_.get()), "masks");
}

void CudaBackend::sample(Tensor logits, std::span<const SampleRow> rows) {
  Turn& turn = turns_[turn_];
  turn.sampling.assign(rows.begin(), rows.end());
  turn.logits = logits;
  turn.logits.rows = static_cast<std::int32_t>(rows.size());
  turn.here.resize(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) turn.here[i] = drawn_here(turn, i);
  if (graphs_.replaying() || rows.empty() || rows.size() > kMostPicks) return;
  if (turn.masked) send_masks(turn, logits.columns);
  // Of padding too, so that a graph serves any number of rows.
  const int all = std::max(logits.rows, turn.logits.rows), columns = logits.columns;
  const SampleRoom room = room_of(turn, all, columns);
  std::optional<Scratch> scratch;
  if (turn.room == nullptr) scratch.emplace(memory_, room.bytes);
  std::byte* const memory = scratch ? static_cast<std::byte*>(scratch->data()) : turn.room;
  const auto find = [&](const float* from, const Picks& to) {
    greedy(stream_.get(), from, all, columns, memory + room.parts, to);
  };

  float* from = floats_of(logits);
  Picks highest = picks_to();
  const bool adjusts = !turn.adjusted.empty(), tells = adjusts && turn.finds_best;
  if (tells) highest.device = reinterpret_cast<Pick*>(memory + room.highest);
  if (!adjusts || tells) find(from, highest);
  if (turn.finds_best) {
    best(stream_.get(), from, all, columns, memory + room.found, highest.device, index_.turn(),
         {turns_[0].host_bests(), turns_[1].host_bests()});
  }
  if (adjusts) {
    float* const to = tells ? reinterpret_cast<float*>(memory + room.adjusted) : from;
    Adjustments by = index_.adjustments();
    if (turn.masked) by.masks = reinterpret_cast<const unsigned*>(masks_.data());
    adjust(stream_.get(), from, all, columns, by, to);
    find(to, picks_to());
    from = to;
  }
  if (!turn.draws.empty())
    draw(stream_.get(), from, columns, index_.draws(), all, hopper_, memory + room.draws, picks_to());
  if (tells) tell_logprobs(stream_.get(), floats_of(logits), all, columns, highest.device, picks_to());
}

Picks CudaBackend::picks_to() {
  return {.device = device_picks(),
          .host = {turns_[0].host_picks(), turns_[1].host_picks()},
          .turn = index_.turn()};
}

// The CPU's sampler, for what it alone knows: for this row and those side by side that need it, too.
std::size_t CudaBackend::sample_on_host(Turn& turn, std::size_t first) {
  std::size_t end = first + 1;
  while (end < turn.sampling.size() && !turn.here[end]) ++end;
  Tensor logits = turn.logits;
  logits.handle = floats_of(logits) + first * static_cast<std::size_t>(logits.columns);
  logits.rows = static_cast<std::int32_t>(end - first);
  const std::size_t count = static_cast<std::size_t>(logits.rows) * static_cast<std::size_t>(logits.columns);
  auto* values = reinterpret_cast<float*>(host_logits_.reserve(count * sizeof(float)));
  read(logits, {values, count});
  cpu::sample(pool_, isa_, values, logits.rows, logits.columns,
              std::span(turn.sampling).subspan(first, end - first),
              std::span(turn.sampled).subspan(first, end - first), sample_scratch_);
  return end;
}

}  // namespace mlxs::cuda
