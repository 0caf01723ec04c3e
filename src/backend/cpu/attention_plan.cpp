#include "backend/cpu/attention_plan.h"

#include <algorithm>

#include "backend/cpu/attention_kernels.h"

namespace mlxs::cpu {
namespace {

constexpr int kAppendRows = 64;     // of one append task
constexpr int kTasksPerThread = 4;  // enough that the last task to finish is a small part of the whole
constexpr int kFewestSplitTokens = 2 * kBlockTokens;

// In units of one token's K and V read from memory; 32 query rows cost about as much again.
std::int64_t cost_of(const AttendTask& task, int group) {
  return static_cast<std::int64_t>(task.end - task.begin) * (32 + task.rows * group);
}

}  // namespace

AttentionPlan make_attention_plan(std::span<const SequenceSpan> sequences, const AttentionShape& shape) {
  AttentionPlan plan;
  const int group = shape.heads / shape.kv_heads;
  const int task_rows = std::max(1, kQueryRows / group);
  std::vector<AttendTask> whole;
  std::int64_t total = 0, all_rows = 0, prefill_rows = 0;
  for (int s = 0; s < static_cast<int>(sequences.size()); ++s) {
    const SequenceSpan& sequence = sequences[static_cast<std::size_t>(s)];
    const int rows = sequence.num_rows;
    const bool append = rows <= task_rows;
    all_rows += rows;
    if (!append) prefill_rows += rows;
    for (int head = 0; head < shape.kv_heads; ++head) {
      for (int row = 0; row < rows; row += task_rows) {
        AttendTask task{.sequence = s,
                        .kv_head = head,
                        .row = row,
                        .rows = std::min(task_rows, rows - row),
                        .begin = 0,
                        .end = sequence.start + rows,
                        .append = append};
        if (shape.causal) task.end = sequence.start + row + task.rows;
        if (shape.window > 0) {
          task.begin = std::max(0, sequence.start + row + 1 - shape.window) / kPageTokens * kPageTokens;
        }
        total += cost_of(task, group);
        whole.push_back(task);
      }
      for (int row = 0; !append && row < rows;) {
        const int to_page_end = kAppendRows - (sequence.start + row) % kPageTokens;
        const int count = std::min(to_page_end, rows - row);
        plan.appends.push_back({s, head, row, count});
        row += count;
      }
    }
  }

  // Splits: tasks much larger than a thread's fair portion are cut along the KV, at block boundaries.
  const std::int64_t portion = std::max<std::int64_t>(1, total / (shape.threads * kTasksPerThread));
  for (const AttendTask& task : whole) {
    const int tokens = task.end - task.begin;
    std::int64_t splits = 1;
    if (shape.threads > 1 && static_cast<int>(whole.size()) < shape.threads * kTasksPerThread) {
      splits =
          std::min<std::int64_t>((cost_of(task, group) + portion - 1) / portion, tokens / kFewestSplitTokens);
    }
    if (splits <= 1) {
      plan.attends.push_back(task);
      continue;
    }
    // The rows to append lie in the last split if that split starts no later than their first page.
    const int blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
    const int per_split = static_cast<int>((blocks + splits - 1) / splits) * kBlockTokens;
    const int start = sequences[static_cast<std::size_t>(task.sequence)].start;
    const int last_begin = task.append ? start / kPageTokens * kPageTokens : task.end - 1;
    Merge merge{0, plan.partial_rows};
    for (int begin = task.begin; begin < task.end; ++merge.splits) {
      AttendTask part = task;
      part.begin = begin;
      part.end = begin + per_split > last_begin ? task.end : begin + per_split;
      part.append = task.append && part.end == task.end;
      part.merge = static_cast<int>(plan.merges.size());
      part.split = merge.splits;
      plan.attends.push_back(part);
      begin = part.end;
    }
    plan.partial_rows += static_cast<std::int64_t>(merge.splits) * task.rows * group;
    plan.merges.push_back(merge);
  }
  // Mostly prefill: tasks in the order of rows, so that a thread reads queries that it wrote itself.
  if (2 * prefill_rows > all_rows && plan.merges.empty()) {
    const auto by_row = [&](const auto& task) {
      return sequences[static_cast<std::size_t>(task.sequence)].first_row + task.row;
    };
    std::ranges::stable_sort(plan.attends, {}, by_row);
    std::ranges::stable_sort(plan.appends, {}, by_row);
    return plan;
  }
  std::ranges::stable_sort(plan.attends, std::ranges::greater{},
                           [&](const AttendTask& task) { return cost_of(task, group); });
  return plan;
}

}  // namespace mlxs::cpu
