#include "engine/encode_task.h"

#include <utility>

namespace mlxs {

EncodeTask::EncodeTask(std::vector<EncodedInput> task_inputs) : inputs(std::move(task_inputs)) {
  result_.values.resize(inputs.size());
  for (const EncodedInput& input : inputs) result_.tokens.push_back(static_cast<int>(input.tokens.size()));
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
