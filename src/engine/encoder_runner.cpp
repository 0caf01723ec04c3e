#include "engine/encoder_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/encoder_ops.h"
#include "base/log.h"
#include "kv/kv_pool.h"

namespace mlxs {
namespace {

// Each input begins a page of its own, and few have less than a page of tokens.
std::int32_t pages_of(std::int32_t tokens) { return tokens / kPageTokens + tokens / 2 + 1; }

}  // namespace

EncoderRunner::EncoderRunner(Backend& backend, Encoder& model, EncoderSettings settings)
    : backend_(backend),
      model_(model),
      settings_(std::move(settings)),
      token_budget_(std::max(settings_.token_budget, model.config().context)) {
  const ModelConfig& config = model.config();
  kv_ = backend.make_kv({.layers = 1,
                         .kv_heads = config.kv_heads,
                         .key_dim = config.key_dim,
                         .value_dim = config.value_dim,
                         .num_pages = pages_of(token_budget_),
                         .type = DType::kBF16});
}

std::size_t EncoderRunner::waiting() const {
  std::size_t count = 0;
  for (const Turn& turn : turns_) count += turn.tasks.size();
  return count;
}

void EncoderRunner::wait(std::shared_ptr<EncodeTask> task) {
  auto turn = std::ranges::find(turns_, task->origin.user, &Turn::user);
  if (turn == turns_.end()) turn = turns_.insert(turn, Turn{.user = task->origin.user, .tasks = {}});
  turn->tasks.push_back(std::move(task));
}

void EncoderRunner::submit(const std::shared_ptr<EncodeTask>& task) {
  const std::size_t ahead = waiting();
  if (ahead >= settings_.max_queue_depth) {
    Error error(ErrorCode::kOverloaded, fmt::format("the queue of '{}' is full", settings_.model),
                "try again in 1 s");
    error.set_retry_after_s(1);
    tell_end(*task, "error", error.full());
    task->fail(error);
    return;
  }
  std::vector<RequestSeen> seen;
  for (const Turn& turn : turns_) {
    for (const auto& other : turn.tasks) {
      if (seen.size() == TimelineRecorder::kMaxSeen) break;
      seen.push_back({other->origin.request_id, other->origin.user, other->tokens()});
    }
  }
  task->origin.timeline.queued(queue_clock_, 0, static_cast<int>(ahead), std::move(seen));
  wait(task);
}

void EncoderRunner::cancel(const EncodeTask& task) {
  for (Turn& turn : turns_) {
    const auto found = std::ranges::find(turn.tasks, &task, &std::shared_ptr<EncodeTask>::get);
    if (found == turn.tasks.end()) continue;
    tell_end(**found, "cancelled", {});
    turn.tasks.erase(found);
    std::erase_if(turns_, [](const Turn& other) { return other.tasks.empty(); });
    return;
  }
}

void EncoderRunner::end_all(const Error& error) {
  for (const Turn& turn : turns_) {
    for (const auto& task : turn.tasks) {
      tell_end(*task, error.code() == ErrorCode::kCancelled ? "cancelled" : "error", error.full());
      task->fail(error);
    }
  }
  turns_.clear();
}

void EncoderRunner::tell_end(EncodeTask& task, std::string_view reason, std::string_view error) {
  const RequestTimeline record = task.tell_end(settings_.model, reason, error, settings_.clock.now());
  if (!settings_.observer || record.request_id.empty()) return;  // a warm-up has none
  settings_.observer->on_finished(
      {.model = settings_.model,
       .request_id = record.request_id,
       .user = record.user,
       .finish = reason,
       .prompt_tokens = record.prompt_tokens,
       .queue_seconds = record.parts[static_cast<std::size_t>(RequestPart::kQueue)],
       .e2e_seconds = record.total_seconds,
       .part_seconds = record.parts});
}

void EncoderRunner::tell_step(TimePoint started, TimePoint planned, TimePoint ran, bool failed) {
  if (!settings_.observer) return;
  const Duration run = ran - planned;
  settings_.observer->on_step({.model = settings_.model,
                               .step = steps_,
                               .started = started,
                               .prefill_tokens = static_cast<int>(tokens_.size()),
                               .plan_seconds = to_seconds(planned - started),
                               .run_seconds = to_seconds(run),
                               .wait_seconds = to_seconds(run),
                               .commit_seconds = to_seconds(settings_.clock.now() - ran),
                               .waiting = static_cast<int>(waiting()),
                               .failed = failed});
}

void EncoderRunner::add(const std::shared_ptr<EncodeTask>& task) {
  const EncodedInput& input = task->inputs[task->begun];
  const auto first_row = static_cast<std::int32_t>(tokens_.size());
  const auto count = static_cast<std::int32_t>(input.tokens.size());
  parts_.push_back({task, task->begun++, first_row});
  tokens_.insert(tokens_.end(), input.tokens.begin(), input.tokens.end());
  for (std::int32_t i = 0; i < count; ++i) {
    positions_.push_back(i);
    position_rows_.push_back(
        i < input.first_pair_token || model_.encoder().token_types < 2 ? i : i + model_.config().context);
  }
  std::vector<PageId> pages(static_cast<std::size_t>(KvPool::pages_for(count)));
  std::iota(pages.begin(), pages.end(), pages_used_);
  pages_used_ += static_cast<std::int32_t>(pages.size());
  pages_.push_back(std::move(pages));
  sequences_.push_back({first_row, count, 0, {}});
}

void EncoderRunner::plan(TimePoint now) {
  parts_.clear();
  tokens_.clear();
  positions_.clear();
  position_rows_.clear();
  pages_.clear();
  sequences_.clear();
  pages_used_ = 0;
  const auto fits = [&](const EncodedInput& input) {
    const auto count = static_cast<std::int32_t>(input.tokens.size());
    return static_cast<std::int32_t>(tokens_.size()) + count <= token_budget_ &&
           pages_used_ + KvPool::pages_for(count) <= pages_of(token_budget_);
  };
  const auto next = [this]() -> const EncodeTask& { return *turns_.front().tasks.front(); };
  while (!turns_.empty() && fits(next().inputs[next().begun])) {
    Turn turn = std::move(turns_.front());
    turns_.pop_front();
    const std::shared_ptr<EncodeTask> task = std::move(turn.tasks.front());
    turn.tasks.pop_front();
    if (task->begun == 0) task->origin.timeline.admitted(now, queue_clock_);
    add(task);
    if (task->begun < task->inputs.size()) turn.tasks.push_back(task);
    if (!turn.tasks.empty()) turns_.push_back(std::move(turn));
  }
  for (std::size_t i = 0; i < sequences_.size(); ++i) sequences_[i].pages = pages_[i];
}

void EncoderRunner::run() {
  backend_.begin_step({.tokens = tokens_,
                       .positions = positions_,
                       .sequences = sequences_,
                       .sampled_rows = {},
                       .kv = kv_.get()});
  dynamic_cast<EncoderOps&>(backend_).set_position_rows(position_rows_);
  const Tensor hidden = model_.forward(backend_);
  backend_.end_step();
  hidden_.resize(static_cast<std::size_t>(hidden.rows) * static_cast<std::size_t>(hidden.columns));
  backend_.read(hidden, hidden_);
}

std::vector<float> EncoderRunner::pooled(std::span<const float> rows) const {
  const auto size = static_cast<std::size_t>(model_.config().hidden);
  const EncoderSpec& spec = model_.encoder();
  if (spec.scores) return {model_.score(rows.first(size))};
  std::vector<float> vector(size);
  if (spec.pooling == EncoderSpec::Pooling::kMean) {
    for (std::size_t i = 0; i < rows.size(); ++i) vector[i % size] += rows[i];  // its length follows
  } else {
    const auto from = spec.pooling == EncoderSpec::Pooling::kFirst ? rows.first(size) : rows.last(size);
    vector.assign(from.begin(), from.end());
  }
  const float squares = std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0f);
  const float scale = 1.0f / std::max(std::sqrt(squares), 1e-12f);
  for (float& value : vector) value *= scale;
  return vector;
}

bool EncoderRunner::step() {
  if (turns_.empty()) return false;
  const TimePoint started = settings_.clock.now();
  plan(started);
  const TimePoint planned = settings_.clock.now();
  ++steps_;
  try {
    run();
  } catch (const std::exception& error) {
    log::error("an encoder's step failed and ends its {} input(s): {}", parts_.size(), error.what());
    end_step_parts(Error(ErrorCode::kInternal, fmt::format("the step failed: {}", error.what())));
    tell_step(started, planned, settings_.clock.now(), true);
    return true;
  }
  const TimePoint ran = settings_.clock.now();
  tokens_done_ += tokens_.size();
  note_shares({.step = steps_,
               .started = planned,
               .ended = ran,
               .prefill_tokens = static_cast<int>(tokens_.size()),
               .total_tokens = static_cast<int>(tokens_.size())});
  const auto hidden = static_cast<std::size_t>(model_.config().hidden);
  for (const Part& part : parts_) {
    EncodeTask& task = *part.task;
    const std::span<const float> rows = std::span(hidden_).subspan(
        static_cast<std::size_t>(part.first_row) * hidden, task.inputs[part.input].tokens.size() * hidden);
    task.set(part.input, pooled(rows));
    if (++task.done < task.inputs.size()) continue;
    tell_end(task, "stop", {});
    task.finish();
  }
  tell_step(started, planned, ran, false);
  return true;
}

void EncoderRunner::end_step_parts(const Error& failure) {
  for (const Part& part : parts_) {
    if (part.task->failed) continue;
    part.task->failed = true;
    for (Turn& turn : turns_) std::erase(turn.tasks, part.task);
    tell_end(*part.task, "error", failure.full());
    part.task->fail(failure);
  }
  std::erase_if(turns_, [](const Turn& turn) { return turn.tasks.empty(); });
}

// Each task's tokens of the step as one chunk of its prompt.
void EncoderRunner::note_shares(const StepShare& share) {
  for (const Part& part : parts_)
    part.task->in_step += static_cast<int>(part.task->inputs[part.input].tokens.size());
  for (const Part& part : parts_) {
    EncodeTask& task = *part.task;
    if (task.in_step == 0) continue;  // it was told by the first of its parts
    task.origin.timeline.prefilled(share, task.computed, task.in_step);
    task.computed += std::exchange(task.in_step, 0);
  }
}

}  // namespace mlxs
