// The op set on one NVIDIA GPU: the residual stream in f32, weights packed, products of bf16 operands summed
// in f32; every op is queued on one stream, or replayed from a graph, and end_step() waits for it. Owned by
// the engine; its thread makes every call, another one than made the backend: what a step or a load begins
// with names the GPU to it. Failures of the driver throw kInternal, of memory kOutOfMemory.
#pragma once

#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "backend/cpu/isa.h"
#include "backend/cpu/sample.h"
#include "backend/cuda/adjust.h"
#include "backend/cuda/best.h"
#include "backend/cuda/blas.h"
#include "backend/cuda/cuda_weight.h"
#include "backend/cuda/device_memory.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/pack_rows.h"
#include "backend/cuda/sampling.h"
#include "backend/cuda/step_graphs.h"
#include "backend/cuda/step_index.h"
#include "backend/cuda/weight_stream.h"
#include "backend/encoder_ops.h"
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

inline constexpr std::int64_t kLongSum = 16384;
inline constexpr std::size_t kMostPicks = 16384;  // rows that the GPU samples in one step

class CudaBackend final : public Backend, public EncoderOps {
 public:
  CudaBackend(int device, int threads, const MetalOptimizations& optimizations);
  ~CudaBackend() override;

  DeviceInfo device() const override;
  MetalOptimizationsStats optimization_stats() const override;
  std::int32_t prompt_rows() const override { return 8192; }
  double read_gb_per_second() override;
  WeightPtr prepare(std::span<const RawWeight> parts, WeightUse use, WeightCache* cache) override;
  std::size_t packed_size(const RawWeight& raw, WeightUse use) const override;
  std::unique_ptr<KvStore> make_kv(const KvSpec& spec) override;
  void copy_page(KvStore& kv, PageId from, PageId to) override;
  bool has_window_pages() const override { return true; }
  void copy_window_page(KvStore& kv, PageId from, PageId to) override;

  void begin_step(const Batch& batch) override;
  Tensor embed(const Weight& table, float scale) override;
  void set_position_rows(std::span<const std::int32_t> rows) override;
  Tensor add_positions(Tensor x, const Weight& table) override;
  Tensor norm(Tensor x, const NormSpec& spec) override;
  Tensor add_norm(Tensor x, const NormSpec& spec, Tensor residual, const NextSpec& next) override;
  Tensor linear(Tensor x, const Weight& weight, const LinearSpec& spec) override;
  Tensor linear_add_norm(Tensor x, const Weight& weight, const Weight* bias, const NormSpec& norm,
                         Tensor residual, const NextSpec& next) override;
  Tensor linear_heads(Tensor x, std::int32_t first, std::int32_t step,
                      std::span<const WeightPtr> weights) override;
  Tensor assemble(std::span<const ColumnRuns> parts, std::int32_t columns) override;
  Tensor moe(Tensor x, const MoeSpec& spec) override;
  Tensor attention(Tensor qkv, const AttentionSpec& spec) override;
  Tensor gather_sampled(Tensor x) override;
  Tensor logits(Tensor x, const Weight& head, const NormSpec* norm, float soft_cap) override;
  void sample(Tensor logits, std::span<const SampleRow> rows) override;
  std::span<const Sampled> end_step() override;
  void submit_step() override;
  RunAhead run_ahead() const override { return RunAhead::kPays; }
  bool draws_on_device(const SampleRow& row) const override;
  double busy_seconds() override;
  void release(Tensor tensor) override;
  void read(Tensor tensor, std::span<float> out) override;

 private:
  // A product's input; `owned` is to be given back after it, if not null.
  struct Input {
    ThinInput thin;
    const void* owned = nullptr;
  };

  Tensor allocate(std::int32_t rows, std::int64_t columns);
  // Which product so many rows take. On Hopper, as measured: the more rows, the smaller the weight up to
  // which thin() is faster; it reads the rows for every sixteen outputs, wide() for every 128.
  bool wide(int rows, std::int64_t columns, std::int64_t outputs) const {
    if (!hopper_ || rows <= 8) return false;
    if (rows <= 16) return columns >= kLongSum;
    return rows > 2 * kThinRows || columns * outputs > (rows <= kThinRows ? 12'000'000 : 8'000'000);
  }
  bool narrow(int rows) const { return rows <= (hopper_ ? 2 * kThinRows : kThinRows); }
  // Padding is zero, the rest is not set.
  Operand make_operand(int rows, int columns, bool wide);
  // An operand with the same values, for who writes both. It goes to a product that ends in the stream.
  Operand make_twin(Tensor tensor);
  Tensor overwrite(Tensor tensor);  // its twin, if it has one, is no longer the same
  float* floats(Tensor tensor);     // which may be in its twin alone so far
  // A tensor normed for the product that reads it next, perhaps but for its root means.
  struct Normed {
    const Weight* gain = nullptr;
    Operand operand{};
    RootMeans means{};
    float* squares = nullptr;
  };
  // Whether a product's sums come together in its kernel, which then can leave more than y.
  bool ends_in_product(const CudaWeight& weight, int rows) const;
  // Lets the kernel that makes y, which f ends, leave what `next` needs; that then returns how many parts.
  void leave_normed(Finish& f, Tensor y, const NextSpec& next, bool of_mixture);
  void note_parts(Tensor y, int parts);
  const Normed* normed(Tensor x, const NormSpec* norm, bool wide) const;  // null: there is none of that norm
  void forget_normed(Tensor tensor);
  Input input_of(Tensor x, const NormSpec* norm, bool wide);
  // The same for this product, which may normalize x itself.
  Input input_for(const CudaWeight& weight, Tensor x, const NormSpec* norm, bool gated);
  // epilogue(x · Wᵀ) to what f names.
  int product(const CudaWeight& weight, const ThinInput& x, int rows, const Finish& f,  // as thin()
              const NormBehind& behind = {});
  bool by_blas(const CudaWeight& weight, int rows) const {
    return blas_ != nullptr && rows >= blas_->least_rows(weight.segments().front().type == Codes::kBF16);
  }
  // brief: in place of f.y, for the bare product in bf16.
  void blas_product(const CudaWeight& weight, const Operand& x, int rows, const Finish& f,
                    void* brief = nullptr);
  // Whether a product can gate as it ends: one packing, and gates that fill their tiles.
  static bool gates_at_once(const CudaWeight& weight) {
    return weight.segments().size() == 1 && weight.rows() % (2 * kTileOutputs) == 0;
  }
  // The same for each expert's rows; shape: any expert's weight. Whether the kernels behind the first one
  // began only when the order was there (expert_rows()).
  bool expert_product(const CudaWeight& shape, const ExpertWeight* table, ExpertRows rows, const Operand& x,
                      const Finish& f);
  // Of few rows, whose experts need no order: three kernels.
  bool takes_few(Tensor x, const MoeSpec& spec) const;
  void few_experts(Tensor x, const MoeSpec& spec, const Route& route, Tensor y);
  void finish_loading();
  struct Turn;
  void announce(std::span<const SampleRow> rows, Turn& turn) const;  // what the GPU will do of them
  // Where sample()'s kernels keep what they find, from the start of one block of memory.
  struct SampleRoom {
    std::size_t parts = 0, found = 0, highest = 0, adjusted = 0, draws = 0, bytes = 0;
  };
  static SampleRoom room_of(const Turn& turn, int rows, int columns);
  void send_masks(Turn& turn, int columns);
  void hand_over();  // the step's graph, if it has one, to the GPU
  Picks picks_to();
  bool drawn_here(const Turn& turn, std::size_t row) const;   // by the GPU
  std::size_t sample_on_host(Turn& turn, std::size_t first);  // returns the row behind those that it sampled
  Pick* device_picks() const { return reinterpret_cast<Pick*>(picks_.data()); }

  int device_;
  int multiprocessors_ = 0;
  bool hopper_ = false;
  std::string name_;
  Stream stream_;
  ThreadPool pool_;
  cpu::Isa isa_;
  std::unique_ptr<CopyStream> copies_;  // metal_optimizations.blit_queue; null: off
  WeightStream weights_;                // on their way
  DeviceArena arena_;                   // of weights
  std::unique_ptr<Blas> blas_;          // for prompts; null: not here
  std::unique_ptr<HeapPool> heaps_;     // metal_optimizations.memory_pool; null: off
  StepMemory memory_;
  StepIndex index_;
  StepGraphs graphs_;
  Batch batch_;
  bool single_ = false;    // each row of the step is the only one of its sequence
  DeviceBuffer counters_;  // zeros: attention's, which long sums take too, and two of other kernels
  std::unordered_map<const void*, Operand> twins_;  // of tensors that the next product will want
  std::unordered_set<const void*> unwritten_;       // tensors whose values are in their twins alone
  std::unordered_map<const void*, Qkv> brief_;      // tensors for attention, in bf16
  std::unordered_map<const void*, Normed> normed_;
  std::int64_t hidden_ = 0;  // columns of the stream
  PinnedBuffer position_staging_;
  const int* position_rows_ = nullptr;  // of this step, if it is an encoder's

  cpu::SampleScratch sample_scratch_;
  // What the host keeps of a step; of those under way each has its own.
  struct Turn {
    Event began, ended;
    PinnedBuffer picks;  // stays where it is, as graphs write to it
    PinnedBuffer bests;
    Pick* host_picks() { return reinterpret_cast<Pick*>(picks.reserve(0)); }
    Best* host_bests() { return reinterpret_cast<Best*>(bests.reserve(0)); }
    Tensor logits;
    std::vector<SampleRow> sampling;
    std::vector<Draw> draws;           // of rows, if any is drawn by the GPU
    std::vector<Adjustment> adjusted;  // of rows, if the GPU adjusts any
    bool finds_best = false;           // logits of each row
    // Rows have masks, which may come as late as sample(): the graph ends with the logits, so that the model
    // runs meanwhile.
    bool masked = false;
    std::byte* room = nullptr;  // of such a step's sample()
    PinnedBuffer masks;
    std::vector<bool> here;  // rows that the GPU draws
    std::vector<Sampled> sampled;
  };
  Turn turns_[2];
  int turn_ = 0, oldest_ = 0, ended_ = 0;  // of the step begun last, of those under way, of that ended last
  int under_way_ = 0;                      // submitted and not ended
  bool begun_ = false;                     // and not submitted
  bool unsettled_ = false;                 // a step was begun, and may run, of which nobody will know the end
  DeviceBuffer picks_;                     // of the step that ran last; stays, too
  DeviceBuffer masks_;                     // the same
  PinnedBuffer host_logits_;
};

}  // namespace mlxs::cuda
