// The way from other threads into an I/O thread: wakes that come while one is on its way share it, so that a
// step which produces a token for each of a thousand streams disturbs their thread once. One an io_context,
// as its service. push() is for any thread; the wakes happen on the context's.
#pragma once

#include <boost/asio/execution_context.hpp>
#include <memory>
#include <mutex>
#include <vector>

#include "serve/asio.h"

namespace mlxs {

class Wakeup;

class WakeQueue final : public net::execution_context::service {
 public:
  using key_type = WakeQueue;
  static inline net::execution_context::id id;

  explicit WakeQueue(net::execution_context& context) : service(context) {}

  // That of the executor's context.
  static WakeQueue& of(const net::any_io_executor& executor);

  void push(std::shared_ptr<Wakeup> wakeup, const net::any_io_executor& executor);

 private:
  void shutdown() override;
  void run();

  std::mutex mutex_;
  std::vector<std::shared_ptr<Wakeup>> waiting_;  // under mutex_
  std::vector<std::shared_ptr<Wakeup>> running_;  // the context's thread; reused
};

}  // namespace mlxs
