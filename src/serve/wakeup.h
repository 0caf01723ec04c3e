// One sleeping coroutine and any number of wakers on any threads. A wake that comes before the sleep is not
// lost; several become one. Held by shared_ptr: wakers may outlive the sleeper, and even its
// io_context: once closed, nothing of asio is left here.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <mutex>
#include <optional>

#include "base/clock.h"
#include "serve/asio.h"

namespace mlxs {

class WakeQueue;

class Wakeup : public std::enable_shared_from_this<Wakeup> {
 public:
  explicit Wakeup(const net::any_io_executor& executor);

  void notify();  // any thread
  void set();     // the executor's thread
  void close();   // the executor's thread, or after it
  net::awaitable<void> wait();
  // False: nothing came for so long.
  net::awaitable<bool> wait_for(Duration patience);

 private:
  friend class WakeQueue;
  void wake();  // of notify(), on the executor's thread

  WakeQueue& queue_;
  std::mutex mutex_;  // guards posted_, and timer_ against close()
  bool posted_ = false;
  bool set_ = false;                        // executor's thread
  std::optional<net::steady_timer> timer_;  // cancelling it is the wake; closed: none
};

}  // namespace mlxs
