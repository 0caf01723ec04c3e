// The data plane of one model: turns a StepPlan into a ragged batch, runs the model, returns the sampled
// tokens. Owns the KV tensors; used by the engine thread only. Buffers are reused from step to step.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/ops.h"
#include "base/clock.h"
#include "engine/mask_pool.h"
#include "models/model.h"
#include "sched/step_plan.h"

namespace mlxs {

struct Request;

class Runner {
 public:
  // backend, model and clock outlive the runner.
  // swap_slots: pages that the host can keep; throws kInvalidArgument if the backend does not give pages out.
  Runner(Backend& backend, Model& model, std::int32_t num_pages, std::int32_t swap_slots, DType kv_type,
         const Clock& clock);

  // One entry a planned span: what it sampled, or nullptr if it does not sample. Valid until the next call.
  // request_of answers every request id of the plan.
  std::span<const Sampled* const> run(const StepPlan& plan,
                                      const std::function<Request&(RequestId)>& request_of);

  // The page copies of a plan, before its step; pages to the host's slots first.
  void copy_pages(const StepPlan& plan);

  // Logits of every position of one sequence: [tokens, vocabulary], in steps of at most `chunk` rows. Uses KV
  // tensors of its own.
  std::vector<float> evaluate(std::span<const TokenId> tokens, std::int32_t chunk = 256);

  // Of the last run(): what its grammars' masks took, handing the model to the backend, and sampling. The
  // rest was waiting for the backend.
  struct Times {
    Duration mask{}, launch{}, sample{};
  };
  const Times& times() const { return times_; }

  std::size_t kv_bytes() const { return kv_->bytes(); }
  KvStore& kv() { return *kv_; }
  // Bytes of one page over all layers, for sizing the pool before there is one.
  static std::uint64_t page_bytes(const ModelConfig& config, DType kv_type);

 private:
  MaskPool* begin_masks();  // null: no row needs one

  Backend& backend_;
  Model& model_;
  DType kv_type_;
  std::uint64_t program_;  // of the steps that run() makes; no other runner has it
  const Clock& clock_;
  std::unique_ptr<KvStore> kv_;
  std::unique_ptr<std::byte[]> swapped_;  // [swap_slots][page bytes], untouched until used
  std::vector<TokenId> tokens_;
  std::vector<std::int32_t> positions_;
  std::vector<SequenceSpan> sequences_;
  std::vector<std::int32_t> sampled_rows_;
  std::vector<SampleRow> sampling_;
  std::vector<const Sampled*> results_;
  std::vector<Request*> constrained_;  // rows whose mask is computed while the model runs
  std::unique_ptr<MaskPool> masks_;    // made for the first of them
  Times times_;
};

}  // namespace mlxs
