// What wakes a connection's coroutine: nothing lost, nothing touched after the end.
#include "serve/wakeup.h"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <thread>

namespace mlxs {
namespace {

TEST(Wakeup, AWakeBeforeTheSleepIsNotLostAndSeveralBecomeOne) {
  net::io_context context;
  const auto wakeup = std::make_shared<Wakeup>(context.get_executor());
  int woken = 0;
  wakeup->notify();
  wakeup->notify();
  net::co_spawn(
      context,
      [&]() -> net::awaitable<void> {
        for (;;) {
          co_await wakeup->wait();
          ++woken;
        }
      },
      net::detached);
  context.poll();
  EXPECT_EQ(woken, 1);
  std::thread([&] { wakeup->notify(); }).join();
  context.restart();
  context.poll();
  EXPECT_EQ(woken, 2);
}

// The engine's thread may still hold a request's waker when the server is gone (seen by AddressSanitizer
// while draining).
TEST(Wakeup, AWakerMayOutliveTheContext) {
  std::shared_ptr<Wakeup> waker;
  {
    net::io_context context;
    waker = std::make_shared<Wakeup>(context.get_executor());
    waker->notify();
    waker->close();
    waker->notify();
  }
  waker->notify();
  waker.reset();
}

}  // namespace
}  // namespace mlxs
