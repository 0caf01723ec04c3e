// The data plane of one model: turns a StepPlan into a ragged batch, runs the model, returns the sampled
// tokens. Owns the KV tensors; used by the engine thread only. Buffers are reused from step to step.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/ops.h"
#include "backend/resample_ops.h"
#include "base/clock.h"
#include "engine/kv_cut.h"
#include "engine/mask_pool.h"
#include "engine/step_runner.h"
#include "models/model.h"
#include "sched/step_plan.h"

namespace mlxs {

class Runner final : public StepRunner {
 public:
  // backend, model and clock outlive the runner.
  // swap_slots: pages that the host can keep; throws kInvalidArgument if the backend does not give pages out.
  Runner(Backend& backend, Model& model, const KvPages& pages, std::int32_t swap_slots, DType kv_type,
         const Clock& clock);

  void launch(const StepPlan& plan, const std::function<Request&(RequestId)>& request_of) override;
  std::span<const Sampled* const> finish() override;
  bool feeds_next() const override { return hosts_[newest_].feeds_next; }
  RunAhead run_ahead() const override { return backend_.run_ahead(); }
  std::vector<float> evaluate(std::span<const TokenId> tokens,
                              std::int32_t chunk) override;  // uses KV tensors of its own

  void copy_pages(const StepPlan& plan) override;

  KvStore* kv() override { return kv_.get(); }

 private:
  // What lies on the host for a step, from launch() to finish().
  struct Host {
    const StepPlan* plan = nullptr;
    std::vector<TokenId> tokens;
    std::vector<std::int32_t> positions, sampled_rows, fed;
    std::vector<SequenceSpan> sequences;
    std::vector<SampleRow> sampling;
    Tensor logits;
    Times times;
    bool feeds_next = false;
  };

  void fill(Host& host, const StepPlan& plan, const std::function<Request&(RequestId)>& request_of);
  // Whether the row that follows this one needs nothing but its token, and this one's is known to the device.
  bool feeds(const Request& request, const SampleRow& row) const;
  MaskPool* begin_masks();  // null: no row needs one
  // Draws again, by their masks, those of `unmasked_` that got what their grammar does not allow.
  void correct(Tensor logits, std::span<const Sampled> sampled);

  Backend& backend_;
  ResampleOps* const resample_;  // null: masks are computed before rows are drawn
  Model& model_;
  DType kv_type_;
  std::uint64_t program_;  // of the steps that launch() makes; no other runner has it
  const Clock& clock_;
  std::unique_ptr<KvStore> kv_;
  std::unique_ptr<std::byte[]> swapped_;  // [swap_slots][page bytes], untouched until used
  Host hosts_[2];
  std::size_t newest_ = 0;
  int under_way_ = 0;
  std::vector<const Sampled*> results_;
  std::vector<Request*> constrained_;  // rows whose mask is computed while the model runs
  struct Unmasked {
    std::vector<std::int32_t> rows;  // of the logits
    std::vector<Request*> requests;  // theirs
    std::vector<Sampled> drawn;      // theirs in the end
  } unmasked_;                       // rows of a grammar that are drawn without their mask
  std::unique_ptr<MaskPool> masks_;  // made for the first of them
};

}  // namespace mlxs
