#include "serve/wake_queue.h"

#include <boost/asio/post.hpp>
#include <utility>

#include "serve/wakeup.h"

namespace mlxs {

WakeQueue& WakeQueue::of(const net::any_io_executor& executor) {
  return net::use_service<WakeQueue>(net::query(executor, net::execution::context));
}

void WakeQueue::push(std::shared_ptr<Wakeup> wakeup, const net::any_io_executor& executor) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = waiting_.empty();
    waiting_.push_back(std::move(wakeup));
  }
  if (first) net::post(executor, [this] { run(); });
}

void WakeQueue::run() {
  {
    const std::lock_guard lock(mutex_);
    running_.swap(waiting_);
  }
  for (const auto& wakeup : running_) wakeup->wake();
  running_.clear();
}

void WakeQueue::shutdown() {
  const std::lock_guard lock(mutex_);
  waiting_.clear();
}

}  // namespace mlxs
