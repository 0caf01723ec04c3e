#include "engine/loaded_model.h"

#include <algorithm>
#include <utility>

#include "engine/refusal.h"
#include "engine/stats.h"

namespace mlxs {
namespace {

constexpr auto kMapEvery = std::chrono::milliseconds(250);

}  // namespace

RequestSeen LoadedModel::seen(RequestId id) const {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return {};
  const Request& request = *found->second;
  return {.request_id = request.label, .user = request.user, .prompt_tokens = request.prompt_tokens};
}

void LoadedModel::submit(std::unique_ptr<Request> request, SchedRequest entry) {
  queue_clock_.advance(clock_.now());
  const SchedulerStats before = scheduler_->stats();
  std::vector<RequestSeen> running;
  for (const RequestId id : scheduler_->running(TimelineRecorder::kMaxSeen)) running.push_back(seen(id));
  request->timeline.queued(queue_clock_, before.running + before.paused, before.waiting, std::move(running));
  request->arrival = admissions_.arrive(entry.priority);
  request->cache_salt = entry.cache_salt;
  tell(RequestEvent::Kind::kQueued, *request, request->queued);
  requests_.emplace(request->id, std::move(request));
  if (tier_ && restore_first(entry)) return;
  enqueue(std::move(entry));
}

void LoadedModel::enqueue(SchedRequest entry) {
  if (const auto refusal = scheduler_->add(std::move(entry), clock_.now())) refuse(*refusal);
}

void LoadedModel::refuse(const Refusal& refusal) {
  Request& request = *requests_.at(refusal.request);
  publish_stats();  // before the client hears of it
  const Error error = refusal_error(refusal, request, info_.id, info_.context_limit);
  end(request,
      {.type = Chunk::Type::kError,
       .finish = FinishReason::kError,
       .error_code = error.code(),
       .error_message = error.full(),
       .retry_after_s = error.retry_after_s()},
      "error", clock_.now());
  deliver();
}

void LoadedModel::cancel(RequestId id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  scheduler_->cancel(id);
  finish(*found->second, FinishReason::kCancelled, clock_.now());
  publish_stats();
  deliver();
}

void LoadedModel::stop(RequestId id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  scheduler_->finish(id);
  finish(*found->second, FinishReason::kStop, clock_.now());
  publish_stats();
  deliver();
}

void LoadedModel::pause(RequestId id) {
  const auto found = requests_.find(id);
  if (found == requests_.end() || !found->second->channel->full()) return;
  scheduler_->pause(id);
  const TimePoint now = clock_.now();
  found->second->timeline.paused(now);
  tell(RequestEvent::Kind::kPaused, *found->second, now);
}

void LoadedModel::resume(RequestId id) {
  scheduler_->resume(id);
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  const TimePoint now = clock_.now();
  found->second->timeline.resumed(now);
  tell(RequestEvent::Kind::kResumed, *found->second, now);
}

// Who gets a place in the same step went first of nobody.
void LoadedModel::note_admissions(const StepPlan& plan, TimePoint now) {
  for (const RequestId id : plan.admitted) {
    Request& request = *requests_.at(id);
    note_who_went_first(request);
    request.timeline.admitted(now, queue_clock_);
    tell(RequestEvent::Kind::kAdmitted, request, now);
    request.prefix_miss = scheduler_->prefix_miss(id);
  }
  for (const RequestId id : plan.admitted) {
    admissions_.add({.who = seen(id),
                     .at = now,
                     .arrival = requests_.at(id)->arrival,
                     .how = scheduler_->admitted_by(id)});
  }
}

void LoadedModel::note_who_went_first(Request& request) {
  TimelineRecorder& timeline = request.timeline;
  if (timeline.waiting()) timeline.went_first(admissions_.went_first(request.arrival, timeline.received()));
}

void LoadedModel::encode(const std::shared_ptr<EncodeTask>& task) {
  encoder_->submit(task);
  publish_stats();
}

bool LoadedModel::accept(Request& request, const Sampled& sampled, const StepShare& step) {
  const TimePoint now = step.ended;
  if (sampled.invalid) {
    broken_ = true;
    if (tier_) tier_->forget(request.tokens, request.cache_salt);
    fail(request, ErrorCode::kInternal,
         "the model produced no usable probabilities (NaN, or every token was excluded)", now);
    return true;
  }
  const TokenId token = sampled.token;
  const bool ends = (!request.ignore_eos && tokenizer_->is_end(token)) ||
                    std::ranges::find(request.stop_tokens, token) != request.stop_tokens.end();
  Delivery& news = news_of(request, now);
  news.sampled = sampled;
  news.shown = !ends;
  news.first = request.timeline.first_token() == TimePoint{};
  news.gap_seconds =
      to_seconds(now - (news.first ? request.timeline.received() : request.timeline.last_token()));
  request.timeline.sampled(step);
  request.tokens.push_back(token);
  if (request.penalized) request.counts.add_generated(token);

  bool complete = ends;
  if (!ends && request.grammar) {
    try {
      complete = request.commit(token);
    } catch (const Error& error) {
      fail(request, error.code(), error.full(), now);
      return true;
    }
  }
  if (!complete && request.generated() < request.max_new_tokens) return false;
  finish(request, complete ? FinishReason::kStop : FinishReason::kLength, now);
  return true;
}

void LoadedModel::finish(Request& request, FinishReason reason, TimePoint now) {
  end(request, {.type = Chunk::Type::kDone, .finish = reason}, finish_reason_name(reason), now);
}

void LoadedModel::fail(Request& request, ErrorCode code, std::string message, TimePoint now) {
  end(request,
      {.type = Chunk::Type::kError,
       .finish = FinishReason::kError,
       .error_code = code,
       .error_message = std::move(message)},
      "error", now);
}

void LoadedModel::end(Request& request, Chunk last, std::string_view reason, TimePoint now) {
  tell(RequestEvent::Kind::kEnded, request, now);
  queue_clock_.advance(now);
  note_who_went_first(request);
  request.timeline.left_queue(queue_clock_);
  Delivery& news = news_of(request, now);
  news.ended = std::move(requests_.extract(request.id).mapped());
  news.last = std::move(last);
  news.reason = reason;
}

void LoadedModel::end_all(const Error& error) {
  if (encoder_) encoder_->end_all(error);
  settle();
  const TimePoint now = clock_.now();
  while (!requests_.empty()) {
    Request& request = *requests_.begin()->second;
    scheduler_->cancel(request.id);
    if (error.code() == ErrorCode::kCancelled) {
      finish(request, FinishReason::kCancelled, now);
    } else {
      fail(request, error.code(), error.full(), now);
    }
  }
  deliver();
  if (tail_) tail_->finish();  // encoders have none
}

const GrammarEngine& LoadedModel::grammars() const {
  std::call_once(grammars_made_, [this] { grammars_ = std::make_unique<GrammarEngine>(*tokenizer_); });
  return *grammars_;
}

EngineSchedulerStats LoadedModel::stats() const {
  EngineSchedulerStats now = stats_.read();
  if (tier_) add_disk_stats(now, tier_->stats());
  return now;
}

void LoadedModel::publish_stats() {
  EngineSchedulerStats now =
      encoder_ ? encoder_stats(info_.id, *encoder_) : engine_stats(info_.id, scheduler_->stats());
  if (tail_) now.ring_depth = tail_->depth();
  now.concurrency_limit = concurrency_limit_;
  now.runs_ahead = ahead_;
  now.hidden_seconds = to_seconds(hidden_);
  if (pool_) {
    const TimePoint at = clock_.now();
    if (at - mapped_ >= kMapEvery || now.running + now.waiting == 0) {
      map_ = page_map(*pool_);
      mapped_ = at;
    }
    now.kv_page_map = map_.cells;
    now.kv_pages_shared = map_.shared;
  }
  stats_.publish(std::move(now));
}

}  // namespace mlxs
