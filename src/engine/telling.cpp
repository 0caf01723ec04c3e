// LoadedModel's side of observing: what happened, as the observer has it.
#include "engine/loaded_model.h"

namespace mlxs {

void LoadedModel::tell(RequestEvent::Kind kind, const Request& request, TimePoint at) {
  if (!observer_) return;
  observer_->on_request(
      {.model = info_.id, .request_id = request.label, .request = request.id, .kind = kind, .at = at});
}

void LoadedModel::tell_step(const StepShare& step, TimePoint planned, bool failed) {
  if (!observer_) return;
  const SchedulerStats now = scheduler_->stats();
  span_records_.clear();
  for (const PlannedSpan& span : plan_.spans) {
    span_records_.push_back({.request = span.request, .start = span.start, .tokens = span.count});
  }
  const StepRunner::Times& times = runner_->times();
  const Duration run = step.ended - planned;
  observer_->on_step({.model = info_.id,
                      .step = step.step,
                      .started = step.started,
                      .prefill_tokens = step.prefill_tokens,
                      .decode_rows = plan_.decode_rows,
                      .plan_seconds = to_seconds(planned - step.started),
                      .run_seconds = to_seconds(run),
                      .launch_seconds = to_seconds(times.launch),
                      .sample_seconds = to_seconds(times.sample),
                      .wait_seconds = to_seconds(run - times.mask - times.launch - times.sample),
                      .mask_seconds = to_seconds(times.mask),
                      .commit_seconds = to_seconds(clock_.now() - step.ended),
                      .running = now.running,
                      .waiting = now.waiting,
                      .paused = now.paused,
                      .kv_pages_free = now.kv.free,
                      .blocked_tokens = now.blocked_tokens,
                      .spans = span_records_,
                      .failed = failed});
}

}  // namespace mlxs
