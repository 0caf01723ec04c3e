// The op set over MLX arrays: each op adds to the step's graph, end_step() evaluates it once. Metal where
// there is a GPU, else MLX's CPU device. Sampling reads the logits on the host and uses the CPU backend's
// sampler, so that seeds mean the same everywhere. Owned by the engine; its thread makes every call (MLX's
// streams belong to a thread).
#pragma once

#include <mlx/mlx.h>

#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "backend/copy_queue.h"
#include "backend/cpu/isa.h"
#include "backend/cpu/sample.h"
#include "backend/encoder_ops.h"
#include "backend/mlx/mlx_attention.h"
#include "backend/mlx/mlx_memory.h"
#include "backend/ops.h"
#include "base/thread_pool.h"

namespace mlxs::mlx_backend {

class MlxBackend final : public Backend, public EncoderOps {
 public:
  // threads: of the sampler.
  explicit MlxBackend(int threads, const MetalOptimizations& optimizations = {});

  DeviceInfo device() const override;
  MetalOptimizationsStats optimization_stats() const override;
  WeightPtr prepare(std::span<const RawWeight> parts, WeightUse use, WeightCache* cache) override;
  void join_experts(std::span<Expert> experts) override;
  std::unique_ptr<KvStore> make_kv(const KvSpec& spec) override;
  void copy_page(KvStore& kv, PageId from, PageId to) override;

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
  std::span<const Sampled> end_step() override;
  void release(Tensor tensor) override;
  void read(Tensor tensor, std::span<float> out) override;

 private:
  Tensor keep(mx::array array);
  mx::array& array_of(Tensor tensor) { return **static_cast<std::optional<mx::array>*>(tensor.handle); }
  mx::array normalized(const mx::array& x, const NormSpec& spec);
  // A norm's gain, with its unit offset added, in the compute type: made once a weight.
  mx::array gain(const NormSpec& spec);

  bool gpu_;
  mx::Dtype compute_;  // of activations: f32 on MLX's CPU device (bf16 is emulated there), bf16 on Metal
  ThreadPool pool_;
  std::unique_ptr<MlxMemoryPool> memory_;  // null: memory_pool is off
  std::unique_ptr<CopyQueue> copies_;      // null: blit_queue is off
  cpu::Isa isa_;
  cpu::SampleScratch sample_scratch_;

  Batch batch_;
  std::span<const std::int32_t> position_rows_;
  std::optional<StepIndex> index_;
  std::deque<std::optional<mx::array>> tensors_;  // of the step; a deque never moves what handles point to
  std::optional<mx::array> results_;              // the logits, which end_step() evaluates
  std::vector<SampleRow> sampling_;
  std::vector<Sampled> sampled_;
};

}  // namespace mlxs::mlx_backend
