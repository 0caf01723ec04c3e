// The CPU backend: native kernels on a pool of threads, f32 activations in a step arena, packed weights,
// paged KV. Owned by the engine; its thread makes every call, and an op is finished when the call returns.
#pragma once

#include <memory>
#include <vector>

#include "backend/cpu/attention.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/linear.h"
#include "backend/cpu/sample.h"
#include "backend/cpu/step_arena.h"
#include "backend/encoder_ops.h"
#include "backend/moe_routing.h"
#include "backend/ops.h"
#include "backend/resample_ops.h"
#include "backend/weight_mapping.h"
#include "base/thread_pool.h"

namespace mlxs::cpu {

class CpuBackend final : public Backend, public EncoderOps, public ResampleOps {
 public:
  // threads ≥ 1. isa: the best to use, at most what detect_isa() allows. Throws kInvalidArgument,
  // kOutOfMemory.
  CpuBackend(int threads, Isa isa, const MetalOptimizations& optimizations = {});

  DeviceInfo device() const override;
  MetalOptimizationsStats optimization_stats() const override;
  double read_gb_per_second() override;
  WeightPtr prepare(std::span<const RawWeight> parts, WeightUse use, WeightCache* cache) override;
  std::size_t packed_size(const RawWeight& raw, WeightUse use) const override;
  std::unique_ptr<KvStore> make_kv(const KvSpec& spec) override;
  void copy_page(KvStore& kv, PageId from, PageId to) override;
  bool has_window_pages() const override { return true; }
  void copy_window_page(KvStore& kv, PageId from, PageId to) override;

  void begin_step(const Batch& batch) override;
  Tensor embed(const Weight& table, float scale) override;
  void set_position_rows(std::span<const std::int32_t> rows) override { position_rows_ = rows; }
  Tensor add_positions(Tensor x, const Weight& table) override;
  Tensor norm(Tensor x, const NormSpec& spec) override;
  Tensor add_norm(Tensor x, const NormSpec& spec, Tensor residual, const NextSpec& next) override;
  Tensor linear(Tensor x, const Weight& weight, const LinearSpec& spec) override;
  Tensor assemble(std::span<const ColumnRuns> parts, std::int32_t columns) override;
  Tensor moe(Tensor x, const MoeSpec& spec) override;
  Tensor attention(Tensor qkv, const AttentionSpec& spec) override;
  Tensor gather_sampled(Tensor x) override;
  Tensor logits(Tensor x, const Weight& head, const NormSpec* norm, float soft_cap) override;
  void sample(Tensor logits, std::span<const SampleRow> rows) override;
  void resample(Tensor logits, std::span<const std::int32_t> rows, const Spec& spec,
                std::span<Sampled> results) override;
  std::span<const Sampled> end_step() override;
  void submit_step() override;
  RunAhead run_ahead() const override { return RunAhead::kPossible; }
  bool draws_on_device(const SampleRow&) const override { return true; }
  void release(Tensor tensor) override;
  void read(Tensor tensor, std::span<float> out) override;

 private:
  Tensor allocate(std::int32_t rows, std::int64_t columns);
  void move_weights();
  void feed();  // the tokens that Batch::fed names
  const NextWeight& after(const CpuWeight& weight, bool gated);

  Isa isa_;
  LinearPath path_;
  ThreadPool pool_;
  std::unique_ptr<HeapPool> heaps_;  // null: memory_pool is off
  StepArena arena_;
  AttentionScratch attention_scratch_;
  SampleScratch sample_scratch_;
  MoeRouting routing_;
  struct Moving {
    std::weak_ptr<WeightMapping> weights;
    int steps = 0;
  };
  std::vector<Moving> moving_;  // mapped weights that are to lie in huge pages
  Batch batch_;
  std::span<const std::int32_t> position_rows_;
  const CpuWeight* last_ =
      nullptr;  // of the products of this step, or of the one before with the same weights
  // What the step that was begun last draws, and the one before; buffers are kept from step to step.
  struct Draws {
    std::vector<Sampled> rows;
    std::size_t count = 0;
    std::span<const Sampled> get() const { return std::span(rows).first(count); }
  };
  Draws draws_, draws_before_;
  int submitted_ = 0;   // steps that have not ended
  bool begun_ = false;  // a step behind them has, and is not submitted
  std::vector<TokenId> fed_tokens_;
};

}  // namespace mlxs::cpu
