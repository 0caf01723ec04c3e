#include "serve/wakeup.h"

#include "serve/wake_queue.h"

namespace mlxs {

Wakeup::Wakeup(const net::any_io_executor& executor)
    : queue_(WakeQueue::of(executor)), timer_(std::in_place, executor) {}

void Wakeup::notify() {
  const std::lock_guard lock(mutex_);
  if (!timer_ || posted_) return;
  posted_ = true;
  queue_.push(shared_from_this(), timer_->get_executor());
}

void Wakeup::wake() {
  {
    const std::lock_guard lock(mutex_);
    posted_ = false;
  }
  set();
}

void Wakeup::set() {
  set_ = true;
  if (timer_) timer_->cancel();
}

void Wakeup::close() {
  const std::lock_guard lock(mutex_);
  timer_.reset();
}

net::awaitable<void> Wakeup::wait() {
  timer_->expires_at(net::steady_timer::time_point::max());
  if (!set_) co_await timer_->async_wait(kAsTuple);
  set_ = false;
}

net::awaitable<bool> Wakeup::wait_for(Duration patience) {
  timer_->expires_after(patience);
  if (!set_) co_await timer_->async_wait(kAsTuple);
  co_return std::exchange(set_, false);
}

}  // namespace mlxs
