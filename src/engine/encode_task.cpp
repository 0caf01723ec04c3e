#include "engine/encode_task.h"

#include <numeric>
#include <utility>

namespace mlxs {

EncodeTask::EncodeTask(std::vector<EncodedInput> task_inputs, EncodeOrigin task_origin)
    : inputs(std::move(task_inputs)), origin(std::move(task_origin)) {
  result_.values.resize(inputs.size());
  for (const EncodedInput& input : inputs) result_.tokens.push_back(static_cast<int>(input.tokens.size()));
}

int EncodeTask::tokens() const {
  return std::accumulate(inputs.begin(), inputs.end(), 0, [](int sum, const EncodedInput& input) {
    return sum + static_cast<int>(input.tokens.size());
  });
}

RequestTimeline EncodeTask::tell_end(std::string_view model, std::string_view reason, std::string_view error,
                                     TimePoint now) {
  RequestTimeline record = origin.timeline.finish(now);
  record.request_id = origin.request_id;
  record.model = model;
  record.user = origin.user;
  record.finish = reason;
  record.error = error;
  record.prompt_tokens = tokens();
  if (const auto on_ended = std::exchange(origin.on_ended, nullptr)) on_ended(record);
  return record;
}

void EncodeTask::set(std::size_t input, std::vector<float> values) {
  result_.values[input] = std::move(values);  // nobody reads it before end()
}

void EncodeTask::finish() { end(); }

void EncodeTask::fail(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (!ended_) error_ = error;
  }
  end();
}

void EncodeTask::end() {
  std::function<void()> waiter;
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    waiter.swap(waiter_);
  }
  ready_.notify_one();
  if (waiter) waiter();
}

void EncodeTask::wait() {
  std::unique_lock lock(mutex_);
  ready_.wait(lock, [this] { return ended_; });
}

std::optional<EncodeResult> EncodeTask::try_take() {
  const std::lock_guard lock(mutex_);
  if (!ended_) return std::nullopt;
  if (error_) throw Error(*error_);
  return std::move(result_);
}

void EncodeTask::notify_when_ready(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!ended_) {
      waiter_ = std::move(callback);
      return;
    }
  }
  callback();
}

}  // namespace mlxs
