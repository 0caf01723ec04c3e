// LoadedModel's side of observing: what happened, as the observer has it.
#include "engine/loaded_model.h"

namespace mlxs {

void LoadedModel::tell(RequestEvent::Kind kind, const Request& request, TimePoint at) {
  if (!observer_) return;
  observer_->on_request(
      {.model = info_.id, .request_id = request.label, .request = request.id, .kind = kind, .at = at});
}

void LoadedModel::tell_step(const Step& step, const StepShare& share, bool failed) {
  if (!observer_) return;
  const SchedulerStats now = scheduler_->stats();
  span_records_.clear();
  for (const PlannedSpan& span : step.plan.spans) {
    span_records_.push_back({.request = span.request, .start = span.start, .tokens = span.count});
  }
  // What it took while another step ran is no part of it.
  StepRunner::Times times = failed ? StepRunner::Times{} : runner_->times();
  if (step.ahead) times.launch = times.sample = times.mask = {};
  const Duration commit = under_way_ == 2 ? Duration{} : clock_.now() - share.ended;
  observer_->on_step({.model = info_.id,
                      .step = share.step,
                      .started = share.started,
                      .prefill_tokens = share.prefill_tokens,
                      .decode_rows = step.plan.decode_rows,
                      .plan_seconds = to_seconds(step.planned - step.started),
                      .run_seconds = to_seconds(share.ended - step.planned),
                      .launch_seconds = to_seconds(times.launch),
                      .sample_seconds = to_seconds(times.sample),
                      .wait_seconds = to_seconds(times.wait),
                      .mask_seconds = to_seconds(times.mask),
                      .commit_seconds = to_seconds(commit),
                      .hidden_seconds = to_seconds(step.hidden),
                      .running = now.running,
                      .waiting = now.waiting,
                      .paused = now.paused,
                      .kv_pages_free = now.kv.free,
                      .blocked_tokens = now.blocked_tokens,
                      .spans = span_records_,
                      .failed = failed});
}

}  // namespace mlxs
