#include "backend/cpu/attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numbers>
#include <vector>

#include "backend/cpu/aligned_buffer.h"
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_plan.h"
#include "backend/cpu/rope.h"

namespace mlxs::cpu {
namespace {

constexpr float kLog2E = std::numbers::log2e_v<float>;

constexpr int kRowsAhead = 3;  // a head's rows of qkv and out lie too far apart for the hardware to foresee

template <bool kToWrite>
void prefetch_floats(const float* at, std::size_t count) {
  for (std::size_t i = 0; i < count; i += 16) __builtin_prefetch(at + i, kToWrite ? 1 : 0, 3);
}

// The plan of the running step for one shape; models with local and global layers alternate between two.
struct PlanEntry {
  struct Rows {
    int count, start;
    bool operator==(const Rows&) const = default;
  };
  AttentionShape shape;
  std::vector<Rows> rows;
  AttentionPlan plan;
  std::unique_ptr<std::atomic<int>[]> finished;  // splits of each merge
  std::uint64_t used = 0;
};

}  // namespace

struct AttentionScratch::Impl {
  RopeCache ropes;
  PlanEntry plans[2];
  std::uint64_t clock = 0;
  std::vector<AlignedBuffer> workers;  // one a thread
  AlignedBuffer partials;

  PlanEntry& plan(std::span<const SequenceSpan> sequences, const AttentionShape& shape);
};

PlanEntry& AttentionScratch::Impl::plan(std::span<const SequenceSpan> sequences,
                                        const AttentionShape& shape) {
  const auto rows_of = [](const SequenceSpan& s) { return PlanEntry::Rows{s.num_rows, s.start}; };
  PlanEntry* oldest = &plans[0];
  for (PlanEntry& entry : plans) {
    if (entry.used > 0 && entry.shape == shape &&
        std::ranges::equal(entry.rows, sequences, {}, {}, rows_of)) {
      entry.used = ++clock;
      return entry;
    }
    if (entry.used < oldest->used) oldest = &entry;
  }
  PlanEntry& entry = *oldest;
  entry.shape = shape;
  entry.rows.resize(sequences.size());
  std::ranges::transform(sequences, entry.rows.begin(), rows_of);
  entry.plan = make_attention_plan(sequences, shape);
  entry.finished = std::make_unique<std::atomic<int>[]>(entry.plan.merges.size());
  entry.used = ++clock;
  return entry;
}

AttentionScratch::AttentionScratch() : impl_(std::make_unique<Impl>()) {}
AttentionScratch::~AttentionScratch() = default;

namespace {

// One call of attention(): what its tasks share.
class LayerRun {
 public:
  LayerRun(const AttentionKernels& kernels, const float* qkv, float* out, const Batch& batch, CpuKvStore& kv,
           const AttentionSpec& spec, const AttentionVectors& vectors, const RopeTable& rope, PlanEntry& plan,
           AttentionScratch::Impl& scratch)
      : kernels_(kernels),
        qkv_(qkv),
        out_(out),
        batch_(batch),
        kv_(kv),
        spec_(spec),
        vectors_(vectors),
        rope_(rope),
        plan_(plan),
        scratch_(scratch),
        group_(spec.heads / spec.kv_heads),
        key_columns_(static_cast<std::size_t>(spec.heads * spec.key_dim)),
        value_columns_(key_columns_ + static_cast<std::size_t>(spec.kv_heads * spec.key_dim)),
        columns_(value_columns_ + static_cast<std::size_t>(spec.kv_heads * spec.value_dim)) {}

  void append(const AppendTask& task) const {
    const SequenceSpan& sequence = batch_.sequences[static_cast<std::size_t>(task.sequence)];
    append_rows(sequence, task.kv_head, task.row, task.rows);
  }
  // Task `index` of the plan; a thread goes on with those behind it up to `end`.
  void attend(std::size_t index, std::size_t end, AlignedBuffer& memory) const;
  // The first pages that a thread needs which begins with task `index`.
  void fetch_first(std::size_t index, std::size_t end) const;

 private:
  struct Buffers {  // of one task
    float *query, *out, *max, *sum;
    const std::byte** ahead;
    std::byte* workspace;
  };

  KvView view(const SequenceSpan& sequence, int head) const {
    const auto& pages = kv_.windowed(spec_.layer) ? sequence.window_pages : sequence.pages;
    return {&kv_.layout(), kv_.blocks(spec_.layer, head), pages.data(), kv_.stride(spec_.layer)};
  }
  HeadTransform transform(const HeadNorm& norm, float scale) const {
    return {.gain = norm.gain,
            .epsilon = norm.epsilon,
            .unit_offset = norm.unit_offset,
            .dim = spec_.key_dim,
            .padded = kv_.layout().key_padded,
            .half = rope_.half,
            .columns = rope_.columns,
            .interleaved = spec_.rope.interleaved,
            .scale = scale};
  }
  const float* angles(const std::vector<float>& table, int row) const {
    return table.data() + static_cast<std::size_t>(row) * static_cast<std::size_t>(rope_.columns);
  }
  void append_rows(const SequenceSpan& sequence, int head, int row, int rows) const;
  void fill_queries(const AttendTask& task, int first_row, float* query) const;
  void finish(int first_row, int kv_head, int rows, const float* out, float* max, float* sum) const;
  void merge_splits(const AttendTask& task, const Merge& merge, int first_row, const Buffers& buffers) const;
  Buffers carve(AlignedBuffer& memory, int rows, int pages) const;
  template <class Visit>
  void visit_pages(std::size_t task, std::size_t end, int skip, int count, Visit visit) const;
  std::size_t partial_floats() const { return static_cast<std::size_t>(kv_.layout().value_padded) + 2; }

  const AttentionKernels& kernels_;
  const float* qkv_;
  float* out_;
  const Batch& batch_;
  CpuKvStore& kv_;
  const AttentionSpec& spec_;
  const AttentionVectors& vectors_;
  const RopeTable& rope_;
  PlanEntry& plan_;
  AttentionScratch::Impl& scratch_;
  int group_;
  std::size_t key_columns_, value_columns_, columns_;  // where K and V start in a row; the row's length
};

void LayerRun::append_rows(const SequenceSpan& sequence, int head, int row, int rows) const {
  const int batch_row = sequence.first_row + row;
  const float* first = qkv_ + static_cast<std::size_t>(batch_row) * columns_;
  kernels_.append({.kv = view(sequence, head),
                   .key = first + key_columns_ + static_cast<std::size_t>(head * spec_.key_dim),
                   .value = first + value_columns_ + static_cast<std::size_t>(head * spec_.value_dim),
                   .stride = columns_,
                   .rows = rows,
                   .first_token = sequence.start + row,
                   .clear_tail = row + rows == sequence.num_rows,
                   .transform = transform(vectors_.key_norm, 1.0f),
                   .cos = angles(rope_.cos, batch_row),
                   .sin = angles(rope_.sin, batch_row)});
}

LayerRun::Buffers LayerRun::carve(AlignedBuffer& memory, int rows, int pages) const {
  const KvLayout& layout = kv_.layout();
  const auto padded = static_cast<std::size_t>((rows + kRowPad - 1) / kRowPad * kRowPad);
  const std::size_t query = padded * static_cast<std::size_t>(layout.key_padded);
  const std::size_t values = padded * static_cast<std::size_t>(layout.value_padded);
  const std::size_t floats =
      query + values + 2 * padded;  // each part a multiple of 64 bytes: padded is one of 32
  const std::size_t ahead = (static_cast<std::size_t>(pages) + 7) / 8 * 8 * sizeof(std::byte*);
  std::byte* base = memory.reserve(floats * sizeof(float) + ahead + attend_workspace_bytes(layout, rows));
  auto* at = reinterpret_cast<float*>(base);
  std::byte* behind = base + floats * sizeof(float);
  return {at,
          at + query,
          at + query + values,
          at + query + values + padded,
          reinterpret_cast<const std::byte**>(behind),
          behind + ahead};
}

int pages_of(const AttendTask& task) { return (task.end - task.begin + kPageTokens - 1) / kPageTokens; }

// The blocks of pages `skip` … skip + count - 1 of what the tasks [task, end) read one after the other.
template <class Visit>
void LayerRun::visit_pages(std::size_t task, std::size_t end, int skip, int count, Visit visit) const {
  for (; task < end && count > 0; ++task) {
    const AttendTask& t = plan_.plan.attends[task];
    const int pages = pages_of(t);
    if (skip < pages) {
      const SequenceSpan& sequence = batch_.sequences[static_cast<std::size_t>(t.sequence)];
      const KvView kv = view(sequence, t.kv_head);
      const PageId* page = kv.pages + t.begin / kPageTokens + skip;
      for (int left = std::min(pages - skip, count); left > 0; --left, --count, ++page)
        visit(kv.base + static_cast<std::size_t>(*page) * kv.page_bytes);
    }
    skip = std::max(0, skip - pages);
  }
}

void LayerRun::fetch_first(std::size_t index, std::size_t end) const {
  visit_pages(index, end, 0, kPagesAhead, [&](const std::byte* block) {
    for (std::size_t at = 0; at < kv_.layout().block_bytes; at += 64) __builtin_prefetch(block + at, 0, 2);
  });
}

void LayerRun::fill_queries(const AttendTask& task, int first_row, float* query) const {
  // Scores come out as base-2 logits; with a soft cap as tanh's argument.
  const float scale = spec_.soft_cap > 0.0f ? spec_.scale / spec_.soft_cap : spec_.scale * kLog2E;
  const HeadTransform transform = this->transform(vectors_.query_norm, scale);
  const std::size_t group_columns =
      static_cast<std::size_t>(group_) * static_cast<std::size_t>(spec_.key_dim);
  for (int row = 0; row < task.rows; ++row) {
    const int batch_row = first_row + row;
    const float* in = qkv_ + static_cast<std::size_t>(batch_row) * columns_ +
                      static_cast<std::size_t>(task.kv_head) * group_columns;
    if (row + kRowsAhead < task.rows) prefetch_floats<false>(in + kRowsAhead * columns_, group_columns);
    for (int head = 0; head < group_; ++head, in += spec_.key_dim, query += transform.padded) {
      kernels_.transform(transform, in, angles(rope_.cos, batch_row), angles(rope_.sin, batch_row), query);
    }
  }
}

void LayerRun::attend(std::size_t index, std::size_t end, AlignedBuffer& memory) const {
  const AttendTask& task = plan_.plan.attends[index];
  const SequenceSpan& sequence = batch_.sequences[static_cast<std::size_t>(task.sequence)];
  if (task.append) append_rows(sequence, task.kv_head, 0, sequence.num_rows);
  const int rows = task.rows * group_;
  const int pages = pages_of(task);
  const Buffers buffers = carve(memory, rows, pages);
  const std::byte** ahead = buffers.ahead;
  visit_pages(index, end, kPagesAhead, pages, [&](const std::byte* block) { *ahead++ = block; });
  std::fill(ahead, buffers.ahead + pages, nullptr);
  const int first_row = sequence.first_row + task.row;
  fill_queries(task, first_row, buffers.query);
  kernels_.attend({.kv = view(sequence, task.kv_head),
                   .query = buffers.query,
                   .rows = rows,
                   .group = group_,
                   .first_token = sequence.start + task.row,
                   .begin = task.begin,
                   .end = task.end,
                   .ahead = buffers.ahead,
                   .causal = spec_.causal,
                   .window = spec_.window,
                   .tanh_factor = spec_.soft_cap > 0.0f ? spec_.soft_cap * kLog2E : 0.0f,
                   .max = buffers.max,
                   .sum = buffers.sum,
                   .out = buffers.out,
                   .workspace = buffers.workspace});
  if (task.merge < 0) {
    finish(first_row, task.kv_head, rows, buffers.out, buffers.max, buffers.sum);
    return;
  }
  const auto merged = static_cast<std::size_t>(task.merge);
  const Merge& merge = plan_.plan.merges[merged];
  auto* partial = reinterpret_cast<float*>(scratch_.partials.data()) +
                  static_cast<std::size_t>(merge.offset + std::int64_t{task.split} * rows) * partial_floats();
  const auto padded = static_cast<std::size_t>(kv_.layout().value_padded);
  for (int row = 0; row < rows; ++row, partial += partial_floats()) {
    partial[0] = buffers.max[row];
    partial[1] = buffers.sum[row];
    std::memcpy(partial + 2, buffers.out + static_cast<std::size_t>(row) * padded, padded * sizeof(float));
  }
  if (plan_.finished[merged].fetch_add(1, std::memory_order_acq_rel) + 1 < merge.splits) return;
  plan_.finished[merged].store(0, std::memory_order_relaxed);  // for the next layer
  merge_splits(task, merge, first_row, buffers);
}

void LayerRun::merge_splits(const AttendTask& task, const Merge& merge, int first_row,
                            const Buffers& buffers) const {
  const int rows = task.rows * group_;
  const int padded = kv_.layout().value_padded;
  const auto* partials = reinterpret_cast<const float*>(scratch_.partials.data()) +
                         static_cast<std::size_t>(merge.offset) * partial_floats();
  for (int row = 0; row < rows; ++row) {
    float* out = buffers.out + static_cast<std::ptrdiff_t>(row) * padded;
    std::fill_n(out, padded, 0.0f);
    float max = kNoScore;
    const auto partial = [&](int split) {
      return partials + static_cast<std::size_t>(split * rows + row) * partial_floats();
    };
    for (int split = 0; split < merge.splits; ++split) max = std::max(max, partial(split)[0]);
    float sum = 0.0f;
    for (int split = 0; split < merge.splits;
         ++split) {  // in order: the result does not depend on who finished last
      const float* part = partial(split);
      const float weight = std::exp2(part[0] - max);
      sum += part[1] * weight;
      for (int d = 0; d < padded; ++d) out[d] += part[2 + d] * weight;
    }
    buffers.max[row] = max;
    buffers.sum[row] = sum;
  }
  finish(first_row, task.kv_head, rows, buffers.out, buffers.max, buffers.sum);
}

// Adds the sinks to the denominators, divides, and writes the rows to their heads' columns.
void LayerRun::finish(int first_row, int kv_head, int rows, const float* out, float* max, float* sum) const {
  const int padded = kv_.layout().value_padded;
  const auto values = static_cast<std::size_t>(spec_.value_dim);
  const std::size_t columns = static_cast<std::size_t>(spec_.heads) * values;
  const int ahead = kRowsAhead * group_;
  for (int row = 0; row < rows; ++row, out += padded) {
    const int head = kv_head * group_ + row % group_;
    float factor = 1.0f / sum[row];
    if (vectors_.sinks != nullptr) {
      const float sink = vectors_.sinks[head] * kLog2E;
      const float top = std::max(max[row], sink);
      const float weight = std::exp2(max[row] - top);
      factor = weight / (sum[row] * weight + std::exp2(sink - top));
    }
    float* target = out_ + static_cast<std::size_t>(first_row + row / group_) * columns +
                    static_cast<std::size_t>(head) * values;
    if (row + ahead < rows)
      prefetch_floats<true>(target + static_cast<std::size_t>(kRowsAhead) * columns, values);
    kernels_.scale(out, factor, spec_.value_dim, target);
  }
}

}  // namespace

const AttentionKernels& attention_kernels(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAmx:
      return attention_amx();
    case Isa::kAvx512:
      return attention_avx512();
    case Isa::kAvx2:
      return attention_avx2();
    case Isa::kPortable:
      break;
  }
#else
  static_cast<void>(isa);
#endif
  return attention_portable();
}

void attention_on(const AttentionKernels& kernels, ThreadPool& pool, const float* qkv, float* out,
                  const Batch& batch, CpuKvStore& kv, const AttentionSpec& spec,
                  const AttentionVectors& vectors, AttentionScratch& scratch) {
  AttentionScratch::Impl& impl = scratch.impl();
  const RopeTable& rope = impl.ropes.get(pool, batch.positions, spec.rope);
  const AttentionShape shape{spec.heads, spec.kv_heads, spec.causal, spec.window, pool.threads()};
  PlanEntry& entry = impl.plan(batch.sequences, shape);
  const AttentionPlan& plan = entry.plan;
  impl.workers.resize(static_cast<std::size_t>(pool.threads()));
  impl.partials.reserve(static_cast<std::size_t>(plan.partial_rows) *
                        (static_cast<std::size_t>(kv.layout().value_padded) + 2) * sizeof(float));

  const LayerRun run(kernels, qkv, out, batch, kv, spec, vectors, rope, entry, impl);
  pool.parallel_shares(static_cast<std::int64_t>(plan.appends.size()), 1,
                       [&](std::int64_t begin, std::int64_t end, int) {
                         for (; begin < end; ++begin)
                           run.append(plan.appends[static_cast<std::size_t>(begin)]);
                       });
  const auto tasks = static_cast<std::int64_t>(plan.attends.size());
  pool.parallel_shares(tasks, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    const ThreadPool::Share share = pool.share_of(tasks, 1, begin);
    if (begin == share.begin)
      run.fetch_first(static_cast<std::size_t>(begin), static_cast<std::size_t>(share.end));
    for (; begin < end; ++begin) {
      run.attend(static_cast<std::size_t>(begin), static_cast<std::size_t>(share.end),
                 impl.workers[static_cast<std::size_t>(worker)]);
    }
  });
}

void attention(ThreadPool& pool, Isa isa, const float* qkv, float* out, const Batch& batch, CpuKvStore& kv,
               const AttentionSpec& spec, const AttentionVectors& vectors, AttentionScratch& scratch) {
  attention_on(attention_kernels(isa), pool, qkv, out, batch, kv, spec, vectors, scratch);
}

}  // namespace mlxs::cpu
