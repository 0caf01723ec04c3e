#include "engine/token_channel.h"

#include <algorithm>
#include <utility>

namespace mlxs {

void TokenChannel::append(Chunk&& chunk) {
  if (size_ == ring_.size()) {
    constexpr std::size_t kLeast = 4;
    std::vector<Chunk> larger(std::max(kLeast, ring_.size() + ring_.size() / 2));
    for (std::size_t i = 0; i < size_; ++i) larger[i] = std::move(ring_[(begin_ + i) % ring_.size()]);
    ring_ = std::move(larger);
    begin_ = 0;
  }
  ring_[(begin_ + size_++) % ring_.size()] = std::move(chunk);
}

bool TokenChannel::push(Chunk chunk) {
  std::function<void()> waiter;
  bool pause = false;
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return false;
    ended_ = chunk.type != Chunk::Type::kToken;
    append(std::move(chunk));
    if (!full_ && !ended_ && size_ >= kHighWater) full_ = pause = true;
    waiter.swap(waiter_);
  }
  ready_.notify_one();
  if (waiter) waiter();
  return pause;
}

bool TokenChannel::take(Chunk& out) {
  out = std::move(ring_[begin_]);
  if (++begin_ == ring_.size()) begin_ = 0;
  --size_;
  if (!full_ || size_ > kHighWater / 2) return false;
  full_ = false;
  return true;
}

std::optional<Chunk> TokenChannel::pop_blocking() {
  Chunk chunk;
  bool drained = false;
  {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return size_ > 0 || ended_; });
    if (size_ == 0) return std::nullopt;
    drained = take(chunk);
  }
  if (drained) on_drained_();
  return chunk;
}

Generator::Poll TokenChannel::try_pop(Chunk& out) {
  bool drained = false;
  {
    const std::lock_guard lock(mutex_);
    if (size_ == 0) return ended_ ? Generator::Poll::kEnd : Generator::Poll::kPending;
    drained = take(out);
  }
  if (drained) on_drained_();
  return Generator::Poll::kChunk;
}

void TokenChannel::notify_when_ready(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (size_ == 0 && !ended_) {
      waiter_ = std::move(callback);
      return;
    }
  }
  callback();
}

bool TokenChannel::full() const {
  const std::lock_guard lock(mutex_);
  return full_;
}

bool TokenChannel::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

}  // namespace mlxs
