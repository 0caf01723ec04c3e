#include "serve/wakeup.h"

#include <boost/asio/post.hpp>

namespace mlxs {

Wakeup::Wakeup(const net::any_io_executor& executor)
    : timer_(std::in_place, executor, net::steady_timer::time_point::max()) {}

void Wakeup::notify() {
  const std::lock_guard lock(mutex_);
  if (!timer_ || posted_) return;
  posted_ = true;
  net::post(timer_->get_executor(), [self = shared_from_this()] {
    {
      const std::lock_guard relock(self->mutex_);
      self->posted_ = false;
    }
    self->set();
  });
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
  if (!set_) co_await timer_->async_wait(kAsTuple);
  set_ = false;
}

}  // namespace mlxs
