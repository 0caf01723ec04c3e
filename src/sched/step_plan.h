// The two values between the control plane and the data plane: what to run in a step, and what came out.
// Plain numbers: no pointers, tensors or callbacks, so a plan can be stored, compared and replayed.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/types.h"

namespace mlxs {

// Consecutive tokens of one request that run in this step.
struct PlannedSpan {
  RequestId request = 0;
  std::int32_t start = 0;  // position of the first token
  std::int32_t count = 0;  // tokens; 1 for a decode row
  bool samples = false;    // the last token's logits are sampled: the request's next token comes out
  std::int32_t fed = -1;  // ≥ 0: the token is not known yet, it is what this span of the step before samples
  std::vector<PageId> pages;         // the request's page table, covering start + count tokens
  std::vector<PageId> window_pages;  // the same of the layers with a window, if those have places of their
                                     // own; what no row sees repeats one that some do

  bool operator==(const PlannedSpan&) const = default;
};

enum class RefusalCause : std::uint8_t {
  kTooLong,
  kQueueFull,  // of a request that waited: its place went to a tenant with fewer requests, or a better tier
  kDeadline
};

struct Refusal {
  RequestId request = 0;
  RefusalCause cause{};
  double retry_after_s = 0;     // when it is likely to be taken; 0: never
  double predicted_ttft_s = 0;  // kDeadline: what it would have got, from its arrival

  bool operator==(const Refusal&) const = default;
};

// What the request at the head of the queue lacks.
enum class QueueBlock : std::uint8_t { kNothing, kSlots, kPages };

// Between a page and a slot of the host's swap space.
struct PageCopy {
  PageId page = -1;
  std::int32_t slot = -1;
  PageId window = -1;  // its part of the layers with a window; -1: none that is copied

  bool operator==(const PageCopy&) const = default;
};

// Copy-on-write of a page that is not full: the second request goes on with it by itself.
struct PageBranch {
  PageId from = -1, to = -1;
  PageId window_from = -1, window_to = -1;  // of the layers with a window, if those have places of their own

  bool operator==(const PageBranch&) const = default;
};

struct StepPlan {
  std::uint64_t step = 0;                   // 1, 2, … of this scheduler; 0 if empty
  std::vector<PlannedSpan> spans;           // decode rows first, then prefill chunks
  std::vector<PageCopy> swap_out, swap_in;  // before the step, also of an empty plan: first from pages to
                                            // slots, then back
  std::vector<PageBranch> branches;         // before the step and after those, also of an empty plan
  std::vector<RequestId> preempted;         // lost their pages before this step; what was not copied will be
                                            // recomputed
  std::vector<RequestId> preempted_for;     // beside preempted: who needed a page, even itself
  std::vector<RequestId> admitted;          // got a place and pages in this step
  std::vector<Refusal> refused;  // waited, and lost their place or cannot make their deadline any more:
                                 // they have ended
  QueueBlock blocked = QueueBlock::kNothing;  // why the others wait
  std::optional<TimePoint>
      held_until;  // requests that could start are held for others to join; plan again then
  std::int32_t total_tokens = 0;
  std::int32_t decode_rows = 0;

  bool empty() const { return spans.empty(); }
  void clear();  // all but the spans, whose buffers the next ones reuse
  bool operator==(const StepPlan&) const = default;
};

struct SpanResult {
  RequestId request = 0;
  TokenId token = -1;  // sampled token, or -1 for a span that does not sample, or whose request has ended
  bool finished =
      false;  // the engine saw a stop condition (or, with token -1, the span failed): release everything
};

struct StepResult {
  std::uint64_t step = 0;
  std::vector<SpanResult> spans;  // same order as StepPlan::spans
  double seconds = 0;             // measured duration, for budgets and predictions
  double copy_seconds = 0;        // of the page copies before it, beside that
};

}  // namespace mlxs
