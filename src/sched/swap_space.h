// Where pages of preempted requests wait on the host: numbered slots of a page each, and what copies have
// cost so far. Pure numbers; the runner owns the bytes. Never fails.
#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

namespace mlxs {

class SwapSpace {
 public:
  explicit SwapSpace(std::int32_t slots) : total_(slots), free_(static_cast<std::size_t>(slots)) {
    std::iota(free_.rbegin(), free_.rend(), 0);
  }

  std::int32_t total() const { return total_; }
  std::int32_t free() const { return static_cast<std::int32_t>(free_.size()); }
  std::int32_t used() const { return total_ - free() - static_cast<std::int32_t>(returned_.size()); }

  std::int32_t take() {
    const std::int32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  // Free from the next step on: copies out of it come behind those into slots.
  void give_back(std::int32_t slot) { returned_.push_back(slot); }
  void begin_step() {
    free_.insert(free_.end(), returned_.begin(), returned_.end());
    returned_.clear();
  }

  void copied(std::int32_t pages, double seconds) {
    if (pages < 1 || !(seconds > 0)) return;
    const double sample = seconds / pages;
    page_seconds_ = page_seconds_ > 0 ? (1 - kWeight) * page_seconds_ + kWeight * sample : sample;
  }
  double page_seconds() const { return page_seconds_; }  // one way; 0: nothing was copied yet

 private:
  static constexpr double kWeight = 0.2;  // of the newest sample
  std::int32_t total_;
  std::vector<std::int32_t> free_, returned_;
  double page_seconds_ = 0;
};

}  // namespace mlxs
