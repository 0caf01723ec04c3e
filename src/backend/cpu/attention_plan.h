// How a step's attention is cut into tasks. Depends on the batch's shape only, so all layers of a step share
// a plan. A sequence whose query rows fit one task appends its own K and V there; longer chunks append first,
// in tasks of their own. When there are too few tasks for the threads, long contexts are split and the last
// split to finish merges the results.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/ops.h"

namespace mlxs::cpu {

struct AppendTask {
  int sequence, kv_head;
  int row, rows;  // within the sequence; cut at page boundaries
};

struct AttendTask {
  int sequence, kv_head;
  int row, rows;   // query rows (tokens) within the sequence
  int begin, end;  // tokens of the KV to read; begin is a multiple of kPageTokens
  bool append;     // append this sequence's rows first
  int merge = -1;  // index into merges: one split of several
  int split = 0;
};

struct Merge {
  int splits;
  std::int64_t offset;  // of the first split's partial result, in rows of all partial results
};

struct AttentionPlan {
  std::vector<AppendTask> appends;  // if any, all of them run before the attends
  std::vector<AttendTask> attends;  // by rows if most rows are prefill, else the most expensive first
  std::vector<Merge> merges;
  std::int64_t partial_rows = 0;
};

struct AttentionShape {
  int heads = 0, kv_heads = 0;
  bool causal = true;
  int window = 0;
  int threads = 1;
  bool operator==(const AttentionShape&) const = default;
};

AttentionPlan make_attention_plan(std::span<const SequenceSpan> sequences, const AttentionShape& shape);

}  // namespace mlxs::cpu
