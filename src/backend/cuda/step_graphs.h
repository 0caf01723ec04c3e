// The decode steps of a program (Batch::program) as CUDA graphs: one for each number of rows, rounded up, and
// each range of lengths, with each kind of sampling. A shape runs op by op the first time, is captured the
// second time, and from then on one launch replays it while the ops only hand out the tensors that they made
// then. Engine thread only. Addresses must stay: what StepMemory has allocated is not freed, and StepIndex
// tells when its own moves.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "backend/ops.h"

namespace mlxs::cuda {

class StepGraphs {
 public:
  StepGraphs() = default;
  ~StepGraphs() { clear(); }
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  // What the step's kernels are launched for: more rows and longer sequences than the batch has.
  struct Shape {
    int rows = 0, longest = 0;
  };
  // kv: a number that no other KV store ever had.
  // sampling: a number for each set of kernels that sampling takes.
  Shape begin(const Batch& batch, std::uint64_t kv, int sampling, cudaStream_t stream);
  void start(cudaStream_t stream);  // everything that the step must copy in is on its way
  // Launches what was captured, now or before; what follows of the step, if anything, runs op by op.
  void finish(cudaStream_t stream);
  void abandon(cudaStream_t stream);  // the step that has begun, if an exception left it
  void clear();                       // a step that has begun then runs op by op

  bool replaying() const { return mode_ == Mode::kReplay; }
  Tensor next();             // of the op that is being replayed
  Tensor note(Tensor made);  // of an op that ran

 private:
  enum class Mode { kEager, kCapture, kReplay };
  using Key =
      std::tuple<std::uint64_t, std::uint64_t, int, int, int>;  // program, KV, rows, longest, sampling
  struct Graph {
    bool seen = false;
    cudaGraphExec_t exec{};
    std::vector<Tensor> tensors;
  };

  void drop_others(cudaStream_t stream);  // than the current one

  std::map<Key, Graph> graphs_;
  Graph* current_ = nullptr;
  Mode mode_ = Mode::kEager;
  std::size_t next_ = 0;
};

}  // namespace mlxs::cuda
