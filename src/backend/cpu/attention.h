// Paged attention of one layer over the ragged batch of a step: QK-norm, rope, KV append and flash-style
// attention, cut into tasks of (sequence, KV head, query rows or KV range) that the pool takes dynamically.
// The engine thread calls; the scratch lives as long as the backend and keeps what the layers of a step
// share. NaN stays inside the sequence it came from.
#pragma once

#include <memory>

#include "backend/cpu/isa.h"
#include "backend/cpu/kv_store.h"
#include "backend/ops.h"
#include "base/thread_pool.h"

namespace mlxs::cpu {

// RMS norm of each head's q or k; null gain: none.
struct HeadNorm {
  const float* gain = nullptr;  // [key_dim]
  float epsilon = 1e-5f;
  bool unit_offset = false;  // the gain is stored as (gain - 1)
};

// The weights an AttentionSpec names, as floats.
struct AttentionVectors {
  HeadNorm query_norm;
  HeadNorm key_norm;
  const float* sinks = nullptr;  // [heads]
};

class AttentionScratch {
 public:
  AttentionScratch();
  ~AttentionScratch();
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// qkv: f32 [num_rows, heads·key_dim + kv_heads·(key_dim + value_dim)] → out: f32 [num_rows, heads·value_dim].
// The batch's pages of spec.layer receive K and V of every row.
void attention(ThreadPool& pool, Isa isa, const float* qkv, float* out, const Batch& batch, CpuKvStore& kv,
               const AttentionSpec& spec, const AttentionVectors& vectors, AttentionScratch& scratch);

// The same on given kernels (tests).
struct AttentionKernels;
const AttentionKernels& attention_kernels(Isa isa);
void attention_on(const AttentionKernels& kernels, ThreadPool& pool, const float* qkv, float* out,
                  const Batch& batch, CpuKvStore& kv, const AttentionSpec& spec,
                  const AttentionVectors& vectors, AttentionScratch& scratch);

}  // namespace mlxs::cpu
