// A step's begin and its end; up to two are under way, which take turns.
#include <algorithm>
#include <utility>

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
  announce(batch.sampling, turn);
  const int sampling = (turn.draws.empty() ? 0 : 1) + (turn.finds_best ? 2 : 0) +
                       (turn.adjusted.empty() ? 0 : 4) + (turn.masked ? 8 : 0);
  const StepGraphs::Shape shape = graphs_.begin(batch, kv, sampling, stream_.get());
  if (batch.sampled_rows.size() == batch.tokens.size()) {  // of padding too, as greedy() has it
    if (!turn.draws.empty()) turn.draws.resize(static_cast<std::size_t>(shape.rows));
    if (!turn.adjusted.empty()) turn.adjusted.resize(static_cast<std::size_t>(shape.rows));
  }
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
  if (index_.begin(batch, turn.draws, turn.adjusted, shape.rows, shape.longest, turn_, stream_.get()))
    graphs_.clear();
  if (index_.fed() != nullptr) {
    feed(stream_.get(), index_.fed(), static_cast<int>(batch.fed.size()), device_picks(), index_.tokens());
  }
  graphs_.start(stream_.get());
}

void CudaBackend::hand_over() {
  try {
    graphs_.finish(stream_.get());
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kOutOfMemory) memory_.note_ran_out();
    throw;
  }
}

void CudaBackend::submit_step() {
  begun_ = false;
  hand_over();
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
    if (!turn.here[i]) {
      i = sample_on_host(turn, i);
      continue;
    }
    turn.sampled[i] = {.token = picks[i].token, .invalid = picks[i].token < 0};
    if (turn.sampling[i].top_logprobs >= 0) turn.sampled[i].logprob = picks[i].logprob;
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
  return std::max(0.0f, elapsed_ms(turn.began.get(), turn.ended.get())) * 1e-3;
}

}  // namespace mlxs::cuda
