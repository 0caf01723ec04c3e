// Buffers for what goes out next, lent from one write to the next: a stream that waits holds none. A pool a
// thread; a lease stays on its thread.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace mlxs {

class PooledText {
 public:
  PooledText() {
    auto& free = pool();
    if (free.empty()) return;
    text_ = std::move(free.back());
    free.pop_back();
  }
  ~PooledText() { give_back(); }
  PooledText(const PooledText&) = delete;
  PooledText& operator=(const PooledText&) = delete;

  std::string& operator*() { return text_; }
  std::string* operator->() { return &text_; }

  // Until it is written to again, this holds no memory.
  void give_back() {
    auto& free = pool();
    if (text_.capacity() >= kLeast && text_.capacity() <= kMost && free.size() < kKept) {
      text_.clear();
      free.push_back(std::move(text_));
    }
    text_ = {};
  }

 private:
  static constexpr std::size_t kKept = 64;
  static constexpr std::size_t kLeast = 64, kMost = 256 << 10;  // bytes of one that is kept

  static std::vector<std::string>& pool() {
    thread_local std::vector<std::string> free;
    return free;
  }

  std::string text_;
};

}  // namespace mlxs
