// A step's begin, what it draws, and its end; up to two are under way, which take turns.
#include <algorithm>
#include <utility>

#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_kv.h"
#include "backend/cuda/op_specs.h"
#include "mlxs/error.h"

namespace mlxs::cuda {

void CudaBackend::begin_step(const Batch& batch) {
  // A step that was left by an exception may still be running; its index must not change under it.
  if (std::exchange(unsettled_, true)) check(cudaStreamSynchronize(stream_.get()), "the step before");
  const std::uint64_t kv = batch.kv != nullptr ? static_cast<CudaKvStore*>(batch.kv)->serial() : 0;
  const StepGraphs::Shape shape = graphs_.begin(batch, kv, stream_.get());
  begun_ = true;
  turn_ = under_way_ == 0 ? oldest_ : 1 - oldest_;
  Turn& turn = turns_[turn_];
  turn.sampling.clear();
  batch_ = batch;
  single_ = std::ranges::all_of(batch.sequences, [](const SequenceSpan& s) { return s.num_rows == 1; });
  memory_.reset();
  twins_.clear();
  if (memory_.ran_out()) {  // blocks of other sizes, which graphs refer to
    check(cudaStreamSynchronize(stream_.get()), "the step before");
    graphs_.clear();
    memory_.trim();
  }
  check(cudaEventRecord(turn.began.get(), stream_.get()), "a step's begin");
  if (index_.begin(batch, shape.rows, shape.longest, turn_, stream_.get())) graphs_.clear();
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
  greedy(stream_.get(), floats_of(logits), static_cast<int>(all), logits.columns, parts.data(),
         {.device = device_picks(),
          .host = {turns_[0].host_picks(), turns_[1].host_picks()},
          .turn = index_.turn()});
}

bool CudaBackend::draws_on_device(const SampleRow& row) const {
  return row.temperature <= 0.0f && row.repetition_penalty == 1.0f && row.presence_penalty == 0.0f &&
         row.frequency_penalty == 0.0f && row.top_logprobs <= 0 && row.bias.empty() && row.allowed.empty();
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
  for (std::size_t i = 0; i < turn.sampled.size(); ++i) {
    if (turn.sampling.size() > kMostPicks || !draws_on_device(turn.sampling[i])) {
      sample_on_host(turn);
      break;
    }
    turn.sampled[i] = {.token = picks[i].token, .logprob = picks[i].logprob, .invalid = picks[i].token < 0};
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

// The CPU's sampler, so that seeds mean the same on every backend.
void CudaBackend::sample_on_host(Turn& turn) {
  const Tensor logits = turn.logits;
  const std::size_t count = static_cast<std::size_t>(logits.rows) * static_cast<std::size_t>(logits.columns);
  auto* values = reinterpret_cast<float*>(host_logits_.reserve(count * sizeof(float)));
  read(logits, {values, count});
  cpu::sample(pool_, isa_, values, logits.rows, logits.columns, turn.sampling, turn.sampled, sample_scratch_);
}

}  // namespace mlxs::cuda
