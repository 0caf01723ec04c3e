// Draws one token a row from logits, as ops.h orders it: bias and mask → penalties → temperature → top_k →
// top_p → min_p → draw. Nothing sorts the vocabulary: maxima of groups and sums of tiers tell which few
// tokens matter, and only those are ordered. The engine thread calls; rows run in parallel, a single row's
// scans are split. Results do not depend on either.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/cpu/isa.h"
#include "backend/ops.h"
#include "backend/resample_ops.h"
#include "base/thread_pool.h"

namespace mlxs::cpu {

class SampleScratch {
 public:
  SampleScratch();
  ~SampleScratch();
  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// logits: f32 [rows, vocabulary], finite or ±infinity; a row with NaN, or with nothing left to draw, comes
// back `invalid`. A row whose best logit is +infinity draws among those that have it. specs.size() ==
// results.size() == rows.
void sample(ThreadPool& pool, Isa isa, const float* logits, int rows, int vocabulary,
            std::span<const SampleRow> specs, std::span<Sampled> results, SampleScratch& scratch);
// What a row counts whose own token is `own`: SampleRow::counts_own.
std::vector<TokenCount> with_own(std::span<const TokenCount> counts, TokenId own);
// Of rows[i] of the logits by spec(i), where it is to be drawn: see ResampleOps.
void resample(ThreadPool& pool, Isa isa, const float* logits, int vocabulary,
              std::span<const std::int32_t> rows, const ResampleOps::Spec& spec, std::span<Sampled> results,
              SampleScratch& scratch);

}  // namespace mlxs::cpu
