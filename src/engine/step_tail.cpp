#include "engine/step_tail.h"

#include <utility>

namespace mlxs {

StepTail::StepTail(int depth) : depth_(depth) {
  if (depth_ > 1) thread_ = std::thread([this] { run(); });
}

StepTail::~StepTail() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  more_.notify_one();
  thread_.join();
}

void StepTail::post(std::function<void()> task) {
  if (depth_ == 1) return task();
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  more_.notify_one();
}

void StepTail::wait_for(std::size_t most) {
  std::unique_lock lock(mutex_);
  fewer_.wait(lock, [&] { return tasks_.size() <= most; });
}

void StepTail::wait_for_room() {
  if (depth_ > 1) wait_for(static_cast<std::size_t>(depth_ - 2));
}

void StepTail::finish() {
  if (depth_ > 1) wait_for(0);
}

void StepTail::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    more_.wait(lock, [&] { return ending_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    // Stays in the queue while it runs: room is made by what is done.
    std::function<void()>& task = tasks_.front();
    lock.unlock();
    task();
    lock.lock();
    tasks_.pop_front();
    fewer_.notify_all();
  }
}

}  // namespace mlxs
