#include "backend/cuda/step_graphs.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "backend/cuda/device_memory.h"
#include "mlxs/error.h"

namespace mlxs::cuda {
namespace {

constexpr int kMostRows = 256;  // a step of more is long enough to hide its launches
constexpr std::size_t kMostGraphs = 256;

// 1, 2, 3, 4, 6, 8, 12, 16, 24, … : at most a third more than there are.
int round_rows(int rows) {
  const auto above = static_cast<int>(std::bit_ceil(static_cast<unsigned>(rows)));
  return rows <= above / 4 * 3 && above >= 4 ? above / 4 * 3 : above;
}

}  // namespace

void StepGraphs::abandon(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status), "a step's graph");
  if (status != cudaStreamCaptureStatusNone) {
    cudaGraph_t left{};
    cudaStreamEndCapture(stream, &left);
    if (left != nullptr) cudaGraphDestroy(left);
    cudaGetLastError();
  }
  mode_ = Mode::kEager;
}

StepGraphs::Shape StepGraphs::begin(const Batch& batch, std::uint64_t kv, int sampling, cudaStream_t stream) {
  abandon(stream);
  current_ = nullptr;
  next_ = 0;
  Shape shape{.rows = static_cast<int>(batch.tokens.size())};
  for (const SequenceSpan& s : batch.sequences) shape.longest = std::max(shape.longest, s.start + s.num_rows);
  const bool decodes =
      std::ranges::all_of(batch.sequences, [](const SequenceSpan& s) { return s.num_rows == 1; }) &&
      batch.sampled_rows.size() == batch.tokens.size();
  if (batch.program == 0 || !decodes || shape.rows == 0 || shape.rows > kMostRows) return shape;

  shape.rows = round_rows(shape.rows);
  shape.longest = static_cast<int>(std::bit_ceil(static_cast<unsigned>(std::max(shape.longest, 256))));
  if (graphs_.size() >= kMostGraphs) {
    check(cudaStreamSynchronize(stream), "the step before");  // it may be one of them
    clear();
  }
  current_ = &graphs_[{batch.program, kv, shape.rows, shape.longest, sampling}];
  if (current_->exec != nullptr) {
    mode_ = Mode::kReplay;
  } else if (current_->seen) {
    mode_ = Mode::kCapture;
  }
  current_->seen = true;
  return shape;
}

void StepGraphs::start(cudaStream_t stream) {
  if (mode_ != Mode::kCapture) return;
  current_->tensors.clear();
  // Relaxed: a step may still allocate.
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "a step's graph");
}

void StepGraphs::finish(cudaStream_t stream) {
  if (mode_ == Mode::kEager) return;
  if (mode_ == Mode::kCapture) {
    cudaGraph_t graph{};
    check(cudaStreamEndCapture(stream, &graph), "a step's graph");
    cudaError_t status = cudaGraphInstantiate(&current_->exec, graph, 0);
    if (status == cudaErrorMemoryAllocation) {  // the others may leave it room
      cudaGetLastError();
      drop_others(stream);
      status = cudaGraphInstantiate(&current_->exec, graph, 0);
    }
    cudaGraphDestroy(graph);
    if (status != cudaSuccess) current_->exec = nullptr;
    check(status, "a step's graph");
  }
  mode_ = Mode::kEager;
  check(cudaGraphLaunch(current_->exec, stream), "a step's graph");
}

void StepGraphs::drop_others(cudaStream_t stream) {
  check(cudaStreamSynchronize(stream), "the step before");  // it may be one of them
  for (auto& [key, graph] : graphs_) {
    if (&graph != current_ && graph.exec != nullptr) cudaGraphExecDestroy(std::exchange(graph.exec, nullptr));
  }
}

void StepGraphs::clear() {
  for (auto& [key, graph] : graphs_) {
    if (graph.exec != nullptr) cudaGraphExecDestroy(graph.exec);
  }
  graphs_.clear();
  current_ = nullptr;
  mode_ = Mode::kEager;  // of the step that has begun, too
}

Tensor StepGraphs::next() {
  if (next_ >= current_->tensors.size())
    throw Error(ErrorCode::kInternal,
                "a step made more ops than the one of the same program that was recorded");
  return current_->tensors[next_++];
}

Tensor StepGraphs::note(Tensor made) {
  if (mode_ == Mode::kCapture) current_->tensors.push_back(made);
  return made;
}

}  // namespace mlxs::cuda
