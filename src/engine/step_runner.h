// What runs a planned step: a model on a backend (runner.h), or a mock that only says what a model might
// (mock_runner.h). Owned by its LoadedModel; used by the engine thread only.
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
  // One entry a planned span: what it sampled, or nullptr if it does not sample. Valid until the next call.
  // request_of answers every request id of the plan.
  virtual std::span<const Sampled* const> run(const StepPlan& plan,
                                              const std::function<Request&(RequestId)>& request_of) = 0;
  // The page copies of a plan, before its step; pages to the host's slots first.
  virtual void copy_pages(const StepPlan& plan) = 0;
  // Logits of every position of one sequence: [tokens, vocabulary], in steps of at most `chunk` rows.
  virtual std::vector<float> evaluate(std::span<const TokenId> tokens, std::int32_t chunk) = 0;
  virtual KvStore* kv() = 0;  // null: it keeps none

  // Of the last run(): what its grammars' masks took, handing the model to the backend, and sampling. The
  // rest was waiting for the backend.
  struct Times {
    Duration mask{}, launch{}, sample{};
  };
  const Times& times() const { return times_; }

 protected:
  Times times_;
};

}  // namespace mlxs
