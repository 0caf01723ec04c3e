// The latest of the values that one thread publishes, for any thread to read. The writer waits for nobody:
// three places, one that it fills, one that readers copy from, and between them the newest, which changes
// hands by an atomic exchange. Readers take turns. Values are default-constructed at first.
#pragma once

#include <array>
#include <atomic>
#include <mutex>
#include <utility>

namespace mlxs {

template <class Value>
class Latest {
 public:
  void publish(Value value) {  // one thread
    places_[writers_] = std::move(value);
    writers_ = between_.exchange(writers_ | kNew, std::memory_order_acq_rel) & kPlace;
  }
  Value read() const {
    const std::lock_guard lock(readers_turn_);
    if ((between_.load(std::memory_order_relaxed) & kNew) != 0) {
      readers_ = between_.exchange(readers_, std::memory_order_acq_rel) & kPlace;
    }
    return places_[readers_];
  }

 private:
  static constexpr unsigned kPlace = 3, kNew = 4;

  std::array<Value, 3> places_{};
  mutable std::atomic<unsigned> between_{1};
  unsigned writers_ = 0;
  mutable unsigned readers_ = 2;
  mutable std::mutex readers_turn_;
};

}  // namespace mlxs
