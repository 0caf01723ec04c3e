// LoadedModel's steps: planned, handed over, ended, and what came of them given to their requests. Where the
// device computes by itself the next step is handed over while one runs: the host's work is done beside it.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "engine/loaded_model.h"

namespace mlxs {

// The disk tier reads pages between steps. Who arrives while two steps are under way waits for both: not for
// nothing, unless asked to.
bool LoadedModel::runs_ahead(const EngineOptions& engine) const {
  if (tier_) return false;
  switch (runner_->run_ahead()) {
    case RunAhead::kNo:
      return false;
    case RunAhead::kPossible:
      return engine.ring_depth == StepTail::kDeepest;
    case RunAhead::kPays:
      return engine.ring_depth != 1;
  }
  return false;
}

void LoadedModel::note_preempted(const StepPlan& plan, TimePoint now) {
  for (std::size_t i = 0; i < plan.preempted.size(); ++i) {
    Request& request = *requests_.at(plan.preempted[i]);
    request.timeline.preempted(now, seen(plan.preempted_for[i]), static_cast<int>(request.tokens.size()));
    tell(RequestEvent::Kind::kPreempted, request, now);
  }
}

bool LoadedModel::give_way(StepPlan& plan, const Error& error) {
  if (error.code() != ErrorCode::kOutOfMemory) return false;
  const TimePoint now = clock_.now();
  const std::size_t requests = plan.spans.size();
  if (!scheduler_->shrink(now, plan)) return false;
  log::warn(
      "step {} of '{}' with {} tokens of {} request(s) ran out of memory: {}; {} preempted, smaller steps "
      "follow",
      plan.step, info_.id, plan.total_tokens, requests, error.what(), plan.preempted.size());
  note_preempted(plan, now);
  publish_stats();
  return true;
}

void LoadedModel::note_plan(const StepPlan& plan, TimePoint now) {
  queue_clock_.advance(now, plan.blocked);
  note_preempted(plan, now);
  if (!plan.admitted.empty()) note_admissions(plan, now);
}

bool LoadedModel::step(bool alone) {
  if (encoder_) {
    const bool worked = encoder_->step();
    if (worked) publish_stats();
    return worked;
  }
  if (under_way_ == 0 && !begin_step()) return tier_ && tier_->save(true);
  if (alone && ahead_) begin_behind();
  end_step();
  return true;
}

void LoadedModel::settle() {
  while (under_way_ > 0) end_step();
}

bool LoadedModel::begin_step() {
  Step& step = steps_[newest_];
  StepPlan& plan = step.plan;
  step.ahead = false;
  step.hidden = {};
  step.started = clock_.now();
  scheduler_->plan(step.started, plan);
  note_plan(plan, step.started);
  for (const Refusal& refusal : plan.refused) refuse(refusal);
  step.copying = clock_.now();
  if (!plan.swap_out.empty() || !plan.swap_in.empty() || !plan.branches.empty()) runner_->copy_pages(plan);
  if (plan.empty()) return false;
  step.planned = clock_.now();
  launch(step);
  ++under_way_;
  return true;
}

void LoadedModel::launch(Step& step) {
  step.failed_launch = nullptr;
  try {
    runner_->launch(step.plan, [&](RequestId id) -> Request& { return *requests_.at(id); });
  } catch (const std::exception&) {
    step.failed_launch = std::current_exception();
  }
}

void LoadedModel::begin_behind() {
  const Step& before = steps_[newest_];
  if (before.failed_launch || !runner_->feeds_next()) return;
  Step& step = steps_[1 - newest_];
  const TimePoint now = clock_.now();
  if (!scheduler_->plan_ahead(now, step.plan)) return;
  note_plan(step.plan, now);
  for (const Refusal& refusal : step.plan.refused) refuse(refusal);
  launch(step);
  if (step.failed_launch) {  // it is planned again when the step under way has ended, and may say why then
    scheduler_->drop_ahead();
    return;
  }
  step.ahead = true;
  step.hidden = clock_.now() - now;
  newest_ = 1 - newest_;
  under_way_ = 2;
}

// With the step before it, which failed.
void LoadedModel::drop_behind() {
  scheduler_->drop_ahead();
  newest_ = 1 - newest_;
  under_way_ = 1;
}

void LoadedModel::end_step() {
  Step& step = oldest();
  std::span<const Sampled* const> sampled;
  std::string failure;
  ErrorCode failure_code = ErrorCode::kInternal;
  try {
    if (step.failed_launch) std::rethrow_exception(step.failed_launch);
    sampled = runner_->finish();
  } catch (const std::exception& error) {
    if (under_way_ == 2) drop_behind();
    if (const auto* known = dynamic_cast<const Error*>(&error)) {
      if (give_way(step.plan, *known)) {
        under_way_ = 0;
        return;
      }
      if (known->code() == ErrorCode::kOutOfMemory) failure_code = known->code();
    }
    failure = error.what();
    log::error("step {} of '{}' failed and ends its {} request(s): {}", step.plan.step, info_.id,
               step.plan.spans.size(), failure);
  }
  const TimePoint ran = clock_.now();
  // Of a step that was handed over while another ran only what was left counts.
  if (step.ahead) step.started = step.copying = step.planned = last_ended_;
  last_ended_ = ran;
  const StepShare share{.step = step.plan.step,
                        .started = step.started,
                        .ended = ran,
                        .prefill_tokens = step.plan.total_tokens - step.plan.decode_rows,
                        .total_tokens = step.plan.total_tokens};
  apply(step, share, sampled, failure, failure_code);
  scheduler_->commit(result_);
  // What a broken request left in the cache may hold its NaNs, also in front of the token that made them.
  if (std::exchange(broken_, false)) scheduler_->drop_cache();
  if (tier_) tier_->save(false);
  publish_stats();
  tail_->wait_for_room();
  deliver();
  if (under_way_ == 2) step.hidden += clock_.now() - ran;
  hidden_ += step.hidden;
  tell_step(step, share, !failure.empty());
  --under_way_;
}

void LoadedModel::apply(const Step& step, const StepShare& share, std::span<const Sampled* const> sampled,
                        const std::string& failure, ErrorCode failure_code) {
  const StepPlan& plan = step.plan;
  result_.step = plan.step;
  result_.seconds = to_seconds(share.ended - step.planned);
  result_.copy_seconds = to_seconds(step.planned - step.copying);
  result_.spans.clear();
  for (std::size_t i = 0; i < plan.spans.size(); ++i) {
    const PlannedSpan& span = plan.spans[i];
    SpanResult& outcome = result_.spans.emplace_back(SpanResult{.request = span.request});
    const auto found = requests_.find(span.request);
    if (found == requests_.end()) continue;  // ended while the step was under way
    Request& request = *found->second;
    if (request.first_step == TimePoint{}) request.first_step = step.planned;
    if (i >= static_cast<std::size_t>(plan.decode_rows))
      request.timeline.prefilled(share, span.start, span.count);
    if (span.start < request.prompt_tokens) {
      // Later chunks may still find pages that another request computed in the meantime.
      request.cached_prompt_tokens = scheduler_->cached_prefix(span.request);
    }
    if (!failure.empty()) {
      broken_ = true;
      if (tier_) tier_->forget(request.tokens, request.cache_salt);
      fail(request, failure_code, "the step failed: " + failure, share.ended);
      outcome.finished = true;
    } else if (sampled[i] != nullptr) {
      outcome.token = sampled[i]->token;
      outcome.finished = accept(request, *sampled[i], share);
    }
  }
}

}  // namespace mlxs
