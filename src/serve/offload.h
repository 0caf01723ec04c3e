// Runs work that takes its time on another pool while the coroutine's own thread serves others.
#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <type_traits>
#include <utility>

#include "serve/asio.h"

namespace mlxs {

// The result of work(), which must not throw and is run on a thread of the pool. What it refers to must live
// until then: a coroutine that awaits this keeps its own locals.
template <class Work>
auto offload(net::thread_pool& pool, Work work) {
  using Result = std::invoke_result_t<Work>;
  return net::async_initiate<const net::use_awaitable_t<>&, void(Result)>(
      [&pool](auto handler, Work task) {
        auto executor = net::get_associated_executor(handler);
        net::post(pool, [handler = std::move(handler), task = std::move(task),
                         guard = net::make_work_guard(executor)]() mutable {
          net::post(guard.get_executor(), [handler = std::move(handler), result = task()]() mutable {
            handler(std::move(result));
          });
        });
      },
      net::use_awaitable, std::move(work));
}

}  // namespace mlxs
