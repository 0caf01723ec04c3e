// What one thread hands to another without ever waiting for it: when the queue is full, the oldest goes. The
// lock is held for a move only. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace mlxs {

template <class Item>
class BoundedQueue {
 public:
  explicit BoundedQueue(std::size_t most) : most_(most) {}

  // enough: with so many in it, take() wakes up before its time is over.
  void push(Item item, std::size_t enough = 1) {
    [[maybe_unused]] Item oldest{};  // freed without the lock
    bool wake = false;
    {
      const std::lock_guard lock(mutex_);
      if (items_.size() == most_) {
        oldest = std::move(items_.front());
        items_.pop_front();
        ++dropped_;
      }
      items_.push_back(std::move(item));
      wake = items_.size() == enough;
    }
    if (wake) changed_.notify_one();
  }

  // Up to `most` items; waits until there are `enough`, `until` or close().
  std::vector<Item> take(std::size_t most, std::size_t enough, TimePoint until) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, until, [&] { return closed_ || items_.size() >= enough; });
    std::vector<Item> taken;
    while (!items_.empty() && taken.size() < most) {
      taken.push_back(std::move(items_.front()));
      items_.pop_front();
    }
    return taken;
  }

  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }
  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  bool empty() const {
    const std::lock_guard lock(mutex_);
    return items_.empty();
  }
  std::uint64_t dropped() const {
    const std::lock_guard lock(mutex_);
    return dropped_;
  }

 private:
  const std::size_t most_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> items_;
  std::uint64_t dropped_ = 0;
  bool closed_ = false;
};

}  // namespace mlxs
