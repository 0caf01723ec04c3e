// The op set: everything a transformer step needs, coarse enough that a backend can fuse and batch.
// A model's forward pass is written with these ops only; cpu/, cuda/ and mlx/ implement them.
// One thread (the engine thread of the device) makes every call. See docs/journey.md for an op's place in a
// step.
//
// Conventions: activations are 2-D, row-major, [num_rows, columns]; one row a token. Weights are [out, in] as
// in files. Ops are eager within a step (begin_step … end_step); a backend may record, fuse or reorder as
// long as the values that come out are the same. Failures (memory) throw Error at begin_step or at load,
// never in the middle of a step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/sample_row.h"
#include "base/dtype.h"
#include "base/types.h"
#include "mlxs/metal_optimizations.h"

namespace mlxs {

class WeightCache;  // backend/weight_cache.h: packed weights on disk, mapped

// ---------------------------------------------------------------- values

// A device tensor of the step that was begun last: a handle into the step arena, invalid after the next
// begin_step.
struct Tensor {
  void* handle = nullptr;  // backend's own; on the CPU a pointer to the first element
  std::int32_t rows = 0;
  std::int32_t columns = 0;
  explicit operator bool() const { return handle != nullptr; }
};

// A tensor as it lies in a file: row-major [rows, columns], `bytes` = rows × row_bytes(type, columns). 1-D:
// rows = 1.
struct RawWeight {
  std::string_view name;
  DType type = DType::kF32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::span<const std::byte> bytes;
  GroupScales scales = {};  // of types that do not carry their own
};

// Rows [first, first + count) of a weight, with their scales: one expert of a stacked tensor. With scales
// that several rows share, first must be a multiple of scales.group_rows.
RawWeight slice_rows(const RawWeight& weight, std::int64_t first, std::int64_t count);

// Its values, row-major, for what must be rearranged before it is packed.
std::vector<float> values_of(const RawWeight& weight);

// A weight in the backend's own layout. Opaque; immutable; safe to share between steps. Destroyed with the
// model.
class Weight {
 public:
  virtual ~Weight() = default;
  std::int64_t rows() const { return rows_; }        // outputs
  std::int64_t columns() const { return columns_; }  // inputs
  std::size_t packed_bytes() const { return packed_bytes_; }

 protected:
  std::int64_t rows_ = 0, columns_ = 0;
  std::size_t packed_bytes_ = 0;
};
using WeightPtr = std::unique_ptr<Weight>;

enum class WeightUse {
  kMatrix,     // linear(): packed into tiles
  kVector,     // norm gains, biases: kept in f32
  kEmbedding,  // embed() and, when tied, linear(): one packed copy serves both
};

// ---------------------------------------------------------------- KV tensors

// The KV tensors of one loaded model; pages are numbered 0 … num_pages-1 (kv/ hands the numbers out).
struct KvSpec {
  std::int32_t layers = 0;
  std::int32_t kv_heads = 0;
  std::int32_t key_dim = 0;    // per head
  std::int32_t value_dim = 0;  // per head
  std::int32_t num_pages = 0;
  DType type = DType::kBF16;  // kBF16, or kI8 with per-token scales where the backend offers it
  // Where Backend::has_window_pages(): the layers whose attention has a window and whose KV lies in pages of
  // their own, numbered 0 … num_window_pages-1; some of them, not all. Empty and 0: a page has all layers.
  std::vector<bool> windowed = {};
  std::int32_t num_window_pages = 0;
};

class KvStore {
 public:
  virtual ~KvStore() = default;
  virtual std::size_t bytes() const = 0;
  // One page over all layers as bytes, between steps, for what keeps pages elsewhere; spans of page_bytes().
  // window: that page's part of the windowed layers, where there are any; -1: that part is left alone.
  // 0: this backend does not give pages out, and the others throw kInternal.
  virtual std::size_t page_bytes() const { return 0; }
  virtual void read_page(PageId page, PageId window, std::span<std::byte> out) const;
  virtual void write_page(PageId page, PageId window, std::span<const std::byte> bytes);
};

// ---------------------------------------------------------------- the ragged batch of a step

// One sequence's rows in this step: `num_rows` consecutive tokens that start at row `first_row`, whose first
// token has position `start`. After the step its KV holds start + num_rows tokens, in `pages` (ceil of that /
// 16 entries at least). window_pages: the same of the windowed layers, if the KvStore has any; entries that
// no row sees are pages of any content.
struct SequenceSpan {
  std::int32_t first_row = 0;
  std::int32_t num_rows = 0;
  std::int32_t start = 0;
  std::span<const PageId> pages;
  std::span<const PageId> window_pages = {};
};

// Prefill chunks and decode rows mixed in any order. The spans must outlive the step's end_step.
struct Batch {
  std::span<const TokenId> tokens;             // [num_rows]
  std::span<const std::int32_t> positions;     // [num_rows]
  std::span<const SequenceSpan> sequences;     // cover the rows exactly, in order
  std::span<const std::int32_t> sampled_rows;  // rows whose logits are wanted, ascending
  KvStore* kv = nullptr;
  // Not 0: all steps with this number make the same ops, with the same weights and specs, in the same order,
  // up to sample(); a backend may record a step and replay it for others of its shape. A number is used for
  // one model.
  std::uint64_t program = 0;
  // Empty, or [num_rows]; not empty only while another step is under way (see submit_step). i ≥ 0: the row's
  // token is what that step draws for its sampled row i, and tokens[row] says nothing; -1: tokens[row]. Where
  // that draw turns out invalid the row has any token, and the caller drops what becomes of it.
  std::span<const std::int32_t> fed = {};
  // [sampled_rows], or empty: what sample() will be called with; but the bits of a mask, whose size `allowed`
  // says, need not be there yet. Only rows that are announced so, or are greedy without bias, counts and
  // mask, count as draws_on_device().
  std::span<const SampleRow> sampling = {};
};

// ---------------------------------------------------------------- op parameters

struct NormSpec {
  enum class Kind { kRms, kLayer } kind = Kind::kRms;
  const Weight* gain = nullptr;  // [columns]
  const Weight* bias = nullptr;  // layer norm only
  float epsilon = 1e-5f;
  bool unit_offset = false;  // gain is stored as (gain - 1), as Gemma does
};

// What reads a result next: norm(y) · weightᵀ, where the model knows it. A hint, which changes no value: a
// backend may leave what that product needs as it makes y.
struct NextSpec {
  const NormSpec* norm = nullptr;
  const Weight* weight = nullptr;
};

// kSwigluClamped (gpt-oss), gated only: g = min(gate, 7), u = clamp(up, ±7) → g · sigmoid(1.702 g) · (u + 1).
enum class Activation { kNone, kSilu, kGeluTanh, kGelu, kSwigluClamped };

// y = epilogue(prologue(x) · Wᵀ + bias). Order: norm → matmul → bias → gate or activation → scale → +
// residual.
struct LinearSpec {
  const NormSpec* norm = nullptr;  // applied to x first
  const Weight* bias = nullptr;    // [out]
  Activation activation = Activation::kNone;
  // W is [2·n, in], gate rows first, then up rows; y[:, i] = activation(gate_i) · up_i, so y has n columns.
  bool gated = false;
  Tensor residual{};  // [rows, out], added last; y may reuse its memory
  // y is the qkv of one attention(), and nothing else reads it: a backend may keep it in a form of its own.
  bool for_attention = false;
  NextSpec next{};
};

struct RopeSpec {
  std::int32_t dims = 0;     // rotated dims of each head; 0: no rotation
  bool interleaved = false;  // pairs (2i, 2i+1) as GGUF llama stores; false: (i, i + dims/2), "NeoX"
  std::span<const float>
      inverse_frequencies;  // [dims/2]; the scalings (llama3, yarn, …) are folded in by the model
  float magnitude = 1.0f;   // multiplies cos and sin (yarn, longrope)
};

struct AttentionSpec {
  std::int32_t layer = 0;
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;   // heads % kv_heads == 0
  std::int32_t key_dim = 0;    // per head
  std::int32_t value_dim = 0;  // per head
  float scale = 0.0f;          // multiplies q·k
  RopeSpec rope{};
  const NormSpec* query_norm = nullptr;  // per head, before rope (Qwen3, Gemma3)
  const NormSpec* key_norm = nullptr;
  bool causal = true;             // false: every row of a sequence sees all rows (encoders)
  std::int32_t window = 0;        // > 0: a token sees itself and window-1 tokens before it
  float soft_cap = 0.0f;          // > 0: scores become cap · tanh(s / cap)
  const Weight* sinks = nullptr;  // [heads]: an extra logit in the softmax denominator (gpt-oss)
};

// `runs` runs of `columns` columns: run i goes from column first + i·step of `from` to column to + i·to_step.
struct ColumnRuns {
  Tensor from;
  std::int32_t first = 0, columns = 0, to = 0;
  std::int32_t runs = 1, step = 0, to_step = 0;
};

// One expert's feed-forward: down · act(gate_up · x). All experts of a layer have the same shapes.
struct Expert {
  WeightPtr gate_up;       // [2·n, hidden], gate rows first
  WeightPtr down;          // [hidden, n]
  WeightPtr gate_up_bias;  // [2·n], or null
  WeightPtr down_bias;     // [hidden], or null
};

// A mixture of experts over norm(x): the router's logits choose `used` experts a row, ties to the lower
// index.
struct MoeSpec {
  enum class Gate {
    kSoftmax,          // weights: softmax over all experts
    kSoftmaxOfChosen,  // softmax over the chosen ones' logits
    kSigmoid,          // sigmoid of each logit
  } gate = Gate::kSoftmax;
  const NormSpec* norm = nullptr;       // applied to x first
  const Weight* router = nullptr;       // [experts, hidden]
  const Weight* router_bias = nullptr;  // [experts], added to the logits
  const Weight* selection_bias =
      nullptr;  // [experts], added to the gate's values for choosing only (DeepSeek V3)
  std::span<const Expert> experts;
  std::int32_t used = 0;
  std::int32_t groups =
      1;  // experts in equal groups, of which only the best groups_used (by the sum of their two
  std::int32_t groups_used = 1;  // highest values) may be chosen from
  bool normalize = false;        // the chosen weights are divided by their sum
  float scale = 1.0f;            // multiplies the weights last
  Activation activation = Activation::kSilu;
  Tensor residual{};  // [rows, hidden], added last; y may reuse its memory
  NextSpec next{};
};

// ---------------------------------------------------------------- the backend

struct DeviceInfo {
  std::string name;          // "cpu"
  std::string description;   // "2 threads, amx+avx512"
  std::size_t memory_bytes;  // total memory of the device
  std::size_t free_bytes;    // available now
  bool own_memory = false;   // the device's own, taken when it is asked for and not when it is touched
  std::string packed_layout =
      {};  // name and version of the packed weights' layout: the key of the weight cache
};

// Whether a step may be begun while the one before is under way.
enum class RunAhead : std::uint8_t {
  kNo,
  kPossible,  // and gains nothing: the device has done an op when its call returns
  kPays,      // the device computes while the host prepares what follows
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual DeviceInfo device() const = 0;
  // What the parts of metal_optimizations that this backend has did so far. Any thread.
  virtual MetalOptimizationsStats optimization_stats() const { return {}; }
  // What streaming reads of the device's memory reach, measured now, in about a second; 0: not known.
  virtual double read_gb_per_second() { return 0.0; }

  // Load time
  // ------------------------------------------------------------------------------------------------ Packs
  // one weight, or several whose outputs are stacked (qkv; gate and up), into this backend's layout. All
  // parts have the same columns; types may differ. With a cache, an entry `key` that fits is mapped instead
  // of packed again. Throws kModelLoad on a type without a kernel, naming it.
  virtual WeightPtr prepare(std::span<const RawWeight> parts, WeightUse use, WeightCache* cache) = 0;
  // All experts of a block are prepared: called once before moe() sees them, for backends that want their
  // weights side by side. Here: nothing to do.
  virtual void join_experts(std::span<Expert> experts) { static_cast<void>(experts); }
  // What prepare() will take for one such weight, without packing it. Here: as much as in the file.
  virtual std::size_t packed_size(const RawWeight& raw, WeightUse use) const;
  virtual std::unique_ptr<KvStore> make_kv(const KvSpec& spec) = 0;  // throws kOutOfMemory with the figures
  // Outside a step; all layers, without the windowed ones where they have pages of their own.
  virtual void copy_page(KvStore& kv, PageId from, PageId to) = 0;
  virtual bool has_window_pages() const { return false; }  // see KvSpec::windowed
  virtual void copy_window_page(KvStore& kv, PageId from, PageId to);

  // One step
  // -------------------------------------------------------------------------------------------------
  virtual void begin_step(const Batch& batch) = 0;
  virtual Tensor embed(const Weight& table, float scale = 1.0f) = 0;  // → [num_rows, hidden]
  virtual Tensor norm(Tensor x, const NormSpec& spec) = 0;            // → like x
  // residual + norm(x), for norms behind a block (Gemma); the result may reuse residual's memory.
  virtual Tensor add_norm(Tensor x, const NormSpec& spec, Tensor residual, const NextSpec& next = {}) = 0;
  virtual Tensor linear(Tensor x, const Weight& weight, const LinearSpec& spec = {}) = 0;
  // residual + norm(x · Wᵀ + bias), bias may be null; as add_norm(). Here: those two, one after the other.
  virtual Tensor linear_add_norm(Tensor x, const Weight& weight, const Weight* bias, const NormSpec& norm,
                                 Tensor residual, const NextSpec& next = {});
  // One weight for each head: y[:, i·out + j] = Σ_k x[:, first + i·step + k] · weights[i][j, k], for weights
  // of one shape [out, in]. → [num_rows, weights · out]. Here: as many linear()s.
  virtual Tensor linear_heads(Tensor x, std::int32_t first, std::int32_t step,
                              std::span<const WeightPtr> weights);
  // A tensor made of columns of others, which have as many rows; together the runs fill its `columns`.
  virtual Tensor assemble(std::span<const ColumnRuns> parts, std::int32_t columns) = 0;
  // Rows are grouped by expert: each used expert's weights are read once a step. → [rows, hidden]
  virtual Tensor moe(Tensor x, const MoeSpec& spec) = 0;
  // qkv: [num_rows, heads·key_dim + kv_heads·(key_dim + value_dim)]. QK-norm, rope, append K and V to the
  // pages, then paged attention over everything the row may see. → [num_rows, heads·value_dim]
  virtual Tensor attention(Tensor qkv, const AttentionSpec& spec) = 0;
  virtual Tensor gather_sampled(Tensor x) = 0;  // → [num_sampled, columns]
  // Final projection in f32, soft-capped if cap > 0: → [num_sampled, vocabulary]
  virtual Tensor logits(Tensor x, const Weight& head, const NormSpec* norm, float soft_cap = 0.0f) = 0;
  // rows.size() == logits.rows. Results are valid after end_step. The spans in `rows` must outlive it, but
  // those of rows that count as draws_on_device(): they are read now, or were by begin_step. What a row is
  // drawn from, after bias, mask and penalties, may stand in its logits afterwards.
  virtual void sample(Tensor logits, std::span<const SampleRow> rows) = 0;
  // Ends the oldest step under way: waits for it and returns what its sample() drew (empty if it was not
  // called), valid until the next begin_step or end_step. A step that was not submitted is submitted first.
  virtual std::span<const Sampled> end_step() = 0;

  // Steps ahead
  // ------------------------------------------------------------------------------------------------
  // submit_step(): every op of the step that was begun last has been called, and the device goes on by
  // itself. One more step may then be begun, and submitted, before end_step() is called for the first: never
  // more than two are under way, and they end in the order in which they began. Between the two, and until
  // both ended, nothing else of the backend is called (no prepare, make_kv, copy_page, read, resample, no
  // page of a KvStore; busy_seconds and device may be). What a step writes to the KV, the step behind it
  // sees.
  //
  // Only behind a step whose every SampleRow draws_on_device(): what it needs of the host it has got when it
  // is submitted. Its logits and activations are gone when the next step begins: the arena is one, and the
  // device uses it in the order of the steps. What lies on the host for a step (staged rows, results) a
  // backend keeps for each of the two.
  //
  // If begin_step, an op or submit_step of the second step throws, it is as if that step had not been begun;
  // the first one is under way, and its end_step() works. A second step that was begun and is not submitted
  // when end_step() or begin_step() is called was left by an exception: it is dropped, too. Positions of the
  // KV that it was to write hold anything; those before them are as they were. If end_step throws, no step is
  // under way any more: the one behind is dropped as well.
  virtual void submit_step() {}
  virtual RunAhead run_ahead() const { return RunAhead::kNo; }  // kNo: submit_step() is not called
  // Whether the token that is drawn by `row` is known to the device without the host's help, so that a row of
  // the next step can be fed with it. Of this the host needs nothing but `row`: bias and counts are complete
  // when it is announced, its mask is when sample() is called. The same of a row that differs only in what
  // these hold, and in counts_own, so that it can be asked ahead.
  virtual bool draws_on_device(const SampleRow& row) const {
    static_cast<void>(row);
    return false;
  }

  // Rows of a step from which on more make prompts no faster: the token budget where none is asked for.
  virtual std::int32_t prompt_rows() const { return 512; }

  // Seconds that the device was at work on the step that ended last; 0: not known.
  virtual double busy_seconds() { return 0.0; }

  // Nothing reads `tensor` any more in this step: its memory may serve the next op, which keeps activations
  // in the cache.
  virtual void release(Tensor tensor) { static_cast<void>(tensor); }

  // Copies a tensor of the current step to the host (tests, embeddings, logits for oracles); out:
  // rows·columns floats.
  virtual void read(Tensor tensor, std::span<float> out) = 0;
};

}  // namespace mlxs
