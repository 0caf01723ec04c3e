// A step's begin, what it draws, and its end; up to two are under way, which take turns.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "backend/cpu/sample_random.h"

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_kv.h"
#include "backend/cuda/op_specs.h"
#include "mlxs/error.h"

namespace mlxs::cuda {

void CudaBackend::begin_step(const Batch& batch) {
  finish_loading();
  // A step that was left by an exception may still be running; its index must not change under it.
  if (std::exchange(unsettled_, true)) check(cudaStreamSynchronize(stream_.get()), "the step before");
  const std::uint64_t kv = batch.kv != nullptr ? static_cast<CudaKvStore*>(batch.kv)->serial() : 0;
  begun_ = true;
  turn_ = under_way_ == 0 ? oldest_ : 1 - oldest_;
  Turn& turn = turns_[turn_];
  turn.sampling.clear();
  fill_draws(batch.sampling, turn.draws);
  turn.finds_best =
      batch.sampling.size() <= kMostPicks && std::ranges::any_of(batch.sampling, [](const SampleRow& row) {
        return row.top_logprobs > 0 && row.top_logprobs <= kMostBest;
      });
  const StepGraphs::Shape shape =
      graphs_.begin(batch, kv, (turn.draws.empty() ? 0 : 1) + (turn.finds_best ? 2 : 0), stream_.get());
  // Of padding too, as greedy() has it.
  if (!turn.draws.empty() && batch.sampled_rows.size() == batch.tokens.size())
    turn.draws.resize(static_cast<std::size_t>(shape.rows));
  batch_ = batch;
  single_ = std::ranges::all_of(batch.sequences, [](const SequenceSpan& s) { return s.num_rows == 1; });
  memory_.reset();
  twins_.clear();
  unwritten_.clear();
  brief_.clear();
  normed_.clear();
  if (memory_.wants_trim()) {  // graphs refer to it
    check(cudaStreamSynchronize(stream_.get()), "the step before");
    graphs_.clear();
    memory_.trim();
  }
  check(cudaEventRecord(turn.began.get(), stream_.get()), "a step's begin");
  if (index_.begin(batch, turn.draws, shape.rows, shape.longest, turn_, stream_.get())) graphs_.clear();
  if (index_.fed() != nullptr) {
    feed(stream_.get(), index_.fed(), static_cast<int>(batch.fed.size()), device_picks(), index_.tokens());
  }
  graphs_.start(stream_.get());
}

void CudaBackend::sample(Tensor logits, std::span<const SampleRow> rows) {
  Turn& turn = turns_[turn_];
  turn.sampling.assign(rows.begin(), rows.end());
  turn.logits = logits;
  turn.logits.rows = static_cast<std::int32_t>(rows.size());
  if (graphs_.replaying() || rows.empty() || rows.size() > kMostPicks) return;
  // Of padding too, so that a graph serves any number of rows.
  const auto all = static_cast<std::size_t>(std::max(logits.rows, turn.logits.rows));
  const Scratch parts(memory_, all * kGreedyParts * 16);
  greedy(stream_.get(), floats_of(logits), static_cast<int>(all), logits.columns, parts.data(), picks_to());
  if (turn.finds_best) {
    const Scratch found(memory_, best_bytes(static_cast<int>(all)));
    best(stream_.get(), floats_of(logits), static_cast<int>(all), logits.columns, found.data(),
         device_picks(), index_.turn(), {turns_[0].host_bests(), turns_[1].host_bests()});
  }
  if (turn.draws.empty()) return;
  const auto drawn = static_cast<int>(std::min(all, turn.draws.size()));
  const Scratch scratch(memory_, draw_bytes(drawn, logits.columns));
  draw(stream_.get(), floats_of(logits), logits.columns, index_.draws(), drawn, hopper_, scratch.data(),
       picks_to());
}

Picks CudaBackend::picks_to() {
  return {.device = device_picks(),
          .host = {turns_[0].host_picks(), turns_[1].host_picks()},
          .turn = index_.turn()};
}

bool CudaBackend::draws_on_device(const SampleRow& row) const {
  return row.repetition_penalty == 1.0f && row.presence_penalty == 0.0f && row.frequency_penalty == 0.0f &&
         row.top_logprobs <= kMostBest && row.bias.empty() && row.allowed.empty();
}

bool CudaBackend::drawn_here(const Turn& turn, std::size_t row) const {
  const SampleRow& wanted = turn.sampling[row];
  return turn.sampling.size() <= kMostPicks && draws_on_device(wanted) &&
         (wanted.top_logprobs <= 0 || turn.finds_best) &&
         (wanted.temperature <= 0.0f || (row < turn.draws.size() && turn.draws[row].factor != 0.0f));
}

// Of each row, and empty if none is the GPU's to draw but those that are greedy.
void CudaBackend::fill_draws(std::span<const SampleRow> rows, std::vector<Draw>& draws) const {
  draws.clear();
  if (rows.size() > kMostPicks) return;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const SampleRow& row = rows[i];
    if (row.temperature <= 0.0f || !draws_on_device(row)) continue;
    draws.resize(rows.size());
    draws[i] = {
        .top_k = row.top_k,
        .factor = std::min(std::numbers::log2e_v<float> / row.temperature, std::numeric_limits<float>::max()),
        .top_p = row.top_p,
        .least = row.min_p > 0.0f ? std::log2(row.min_p) : std::numeric_limits<float>::lowest(),
        .uniform = cpu::uniform_draw(row.seed, row.draw)};
  }
}

void CudaBackend::submit_step() {
  begun_ = false;
  try {
    graphs_.finish(stream_.get());
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kOutOfMemory) memory_.note_ran_out();
    throw;
  }
  check(cudaEventRecord(turns_[turn_].ended.get(), stream_.get()), "a step's end");
  ++under_way_;
  unsettled_ = false;
}

std::span<const Sampled> CudaBackend::end_step() {
  if (begun_ && under_way_ > 0) graphs_.abandon(stream_.get());  // left by an exception
  if (std::exchange(begun_, false) && under_way_ == 0) {
    begun_ = true;
    submit_step();
  }
  if (under_way_ == 0) return {};
  Turn& turn = turns_[oldest_];
  const int behind = std::exchange(under_way_, 0) - 1;  // none, should something throw
  const bool was_unsettled = std::exchange(unsettled_, true);
  check(cudaEventSynchronize(turn.ended.get()), "the step");
  turn.sampled.assign(turn.sampling.size(), {});
  const Pick* picks = turn.host_picks();
  for (std::size_t i = 0; i < turn.sampled.size();) {
    if (!drawn_here(turn, i)) {
      i = sample_on_host(turn, i);
      continue;
    }
    turn.sampled[i] = {.token = picks[i].token, .logprob = picks[i].logprob, .invalid = picks[i].token < 0};
    if (!turn.sampled[i].invalid && turn.sampling[i].top_logprobs > 0) {
      const std::span bests(turn.host_bests() + i * kMostBest,
                            static_cast<std::size_t>(turn.sampling[i].top_logprobs));
      for (const Best& one : bests) {
        if (one.token >= 0) turn.sampled[i].top.push_back({one.token, one.logprob});
      }
    }
    ++i;
  }
  check(cudaGetLastError(), "the step");
  ended_ = oldest_;
  unsettled_ = was_unsettled;
  under_way_ = behind;
  if (behind > 0) oldest_ = 1 - oldest_;
  return turn.sampled;
}

double CudaBackend::busy_seconds() {
  const Turn& turn = turns_[ended_];
  float milliseconds = 0;
  return cudaEventElapsedTime(&milliseconds, turn.began.get(), turn.ended.get()) == cudaSuccess
             ? milliseconds * 1e-3
             : 0.0;
}

// The CPU's sampler, for what it alone knows: for this row and those side by side that need it, too.
std::size_t CudaBackend::sample_on_host(Turn& turn, std::size_t first) {
  std::size_t end = first + 1;
  while (end < turn.sampling.size() && !drawn_here(turn, end)) ++end;
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
