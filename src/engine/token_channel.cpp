#include "engine/token_channel.h"

#include <utility>

namespace mlxs {

bool TokenChannel::push(Chunk chunk) {
  std::function<void()> waiter;
  bool pause = false;
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return false;
    ended_ = chunk.type != Chunk::Type::kToken;
    chunks_.push_back(std::move(chunk));
    if (!full_ && !ended_ && chunks_.size() >= kHighWater) full_ = pause = true;
    waiter.swap(waiter_);
  }
  ready_.notify_one();
  if (waiter) waiter();
  return pause;
}

bool TokenChannel::take(Chunk& out) {
  out = std::move(chunks_.front());
  chunks_.pop_front();
  if (!full_ || chunks_.size() > kHighWater / 2) return false;
  full_ = false;
  return true;
}

std::optional<Chunk> TokenChannel::pop_blocking() {
  Chunk chunk;
  bool drained = false;
  {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return !chunks_.empty() || ended_; });
    if (chunks_.empty()) return std::nullopt;
    drained = take(chunk);
  }
  if (drained) on_drained_();
  return chunk;
}

Generator::Poll TokenChannel::try_pop(Chunk& out) {
  bool drained = false;
  {
    const std::lock_guard lock(mutex_);
    if (chunks_.empty()) return ended_ ? Generator::Poll::kEnd : Generator::Poll::kPending;
    drained = take(out);
  }
  if (drained) on_drained_();
  return Generator::Poll::kChunk;
}

void TokenChannel::notify_when_ready(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (chunks_.empty() && !ended_) {
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
