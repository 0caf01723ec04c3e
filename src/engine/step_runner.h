// What runs planned steps: a model on a backend (runner.h), or a mock that only says what a model might
// (mock_runner.h). Two steps may be under way at once: while one runs, the next is handed over, each of its
// rows fed with what the first samples. Owned by its LoadedModel; used by the engine thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backend/ops.h"
#include "base/clock.h"
#include "sched/step_plan.h"

namespace mlxs {

struct Request;

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // Hands a step over. `plan` outlives its finish(); request_of answers every request id of it, and is not
  // asked later. With a step under way that feeds_next(): the one behind it, as plan_ahead() gave it. If this
  // throws, it is as if it had not been called.
  virtual void launch(const StepPlan& plan, const std::function<Request&(RequestId)>& request_of) = 0;
  // Waits for the oldest step under way. One entry a planned span: what it sampled, or nullptr if it does not
  // sample. Valid until the next call of either. If this throws, no step is under way.
  virtual std::span<const Sampled* const> finish() = 0;
  // Of the step that was launched last: whether another may be launched behind it.
  virtual bool feeds_next() const = 0;
  virtual RunAhead run_ahead() const = 0;  // what can be gained by that
  // The page copies of a plan, before its step; pages to the host's slots first. Not while a step is under
  // way, nor what follows.
  virtual void copy_pages(const StepPlan& plan) = 0;
  // Logits of every position of one sequence: [tokens, vocabulary], in steps of at most `chunk` rows.
  virtual std::vector<float> evaluate(std::span<const TokenId> tokens, std::int32_t chunk) = 0;
  virtual KvStore* kv() = 0;  // null: it keeps none

  // Of the step of the last finish(): what its grammars' masks took, handing the model to the backend,
  // sampling, and waiting for the backend. The first three before it was under way, but for masks of tokens
  // drawn again.
  struct Times {
    Duration mask{}, launch{}, sample{}, wait{};
  };
  const Times& times() const { return times_; }

 protected:
  Times times_;
};

}  // namespace mlxs
