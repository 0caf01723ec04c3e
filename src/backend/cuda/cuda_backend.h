// The op set on one NVIDIA GPU: activations in f32, weights packed, products with bf16 operands from five
// rows on; every op is queued on one stream and end_step() waits for it. Owned by the engine; its thread
// makes every call. Failures of the driver throw kInternal, of memory kOutOfMemory.
#pragma once

#include <vector>

#include "backend/cpu/isa.h"
#include "backend/cpu/sample.h"
#include "backend/cuda/cuda_weight.h"
#include "backend/cuda/device_memory.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/step_index.h"
#include "backend/moe_routing.h"
#include "backend/ops.h"
#include "base/thread_pool.h"

namespace mlxs::cuda {

class Stream {
 public:
  explicit Stream(int device);
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_{};
};

class CudaBackend final : public Backend {
 public:
  CudaBackend(int device, int threads);
  ~CudaBackend() override;

  DeviceInfo device() const override;
  double read_gb_per_second() override;
  WeightPtr prepare(std::span<const RawWeight> parts, WeightUse use, WeightCache* cache) override;
  std::size_t packed_size(const RawWeight& raw, WeightUse use) const override;
  std::unique_ptr<KvStore> make_kv(const KvSpec& spec) override;
  void copy_page(KvStore& kv, PageId from, PageId to) override;

  void begin_step(const Batch& batch) override;
  Tensor embed(const Weight& table, float scale) override;
  Tensor norm(Tensor x, const NormSpec& spec) override;
  Tensor add_norm(Tensor x, const NormSpec& spec, Tensor residual) override;
  Tensor linear(Tensor x, const Weight& weight, const LinearSpec& spec) override;
  Tensor assemble(std::span<const ColumnRuns> parts, std::int32_t columns) override;
  Tensor moe(Tensor x, const MoeSpec& spec) override;
  Tensor attention(Tensor qkv, const AttentionSpec& spec) override;
  Tensor gather_sampled(Tensor x) override;
  Tensor logits(Tensor x, const Weight& head, const NormSpec* norm, float soft_cap) override;
  void sample(Tensor logits, std::span<const SampleRow> rows) override;
  std::span<const Sampled> end_step() override;
  void release(Tensor tensor) override { memory_.release(tensor.handle); }
  void read(Tensor tensor, std::span<float> out) override;

 private:
  Tensor allocate(std::int32_t rows, std::int64_t columns);
  // f.y = epilogue(x · Wᵀ)
  void product(const CudaWeight& weight, const float* x, int rows, const Finish& f);
  // Experts in order, each over its rows of x → [rows · used, hidden], in expert order.
  void run_experts(const MoeSpec& spec, const float* x, int hidden, float* y);
  void sample_on_host();

  int device_;
  int multiprocessors_ = 0;
  std::string name_;
  Stream stream_;
  ThreadPool pool_;
  cpu::Isa isa_;
  Uploader uploader_;
  StepMemory memory_;
  StepIndex index_;
  Batch batch_;

  MoeRouting routing_;
  cpu::SampleScratch sample_scratch_;
  PinnedBuffer results_;  // greedy picks, or logits
  Tensor logits_;
  std::vector<SampleRow> sampling_;
  std::vector<Sampled> sampled_;
};

}  // namespace mlxs::cuda
