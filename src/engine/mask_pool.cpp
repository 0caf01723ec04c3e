#include "engine/mask_pool.h"

#include "engine/request.h"

namespace mlxs {

MaskPool::MaskPool(int threads, const Clock& clock) : clock_(clock) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

MaskPool::~MaskPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  more_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void MaskPool::begin(std::span<Request* const> rows) {
  {
    const std::lock_guard lock(mutex_);
    rows_.assign(rows.begin(), rows.end());
    next_ = 0;
    open_ = rows.size();
  }
  more_.notify_all();
}

bool MaskPool::compute_next(std::unique_lock<std::mutex>& lock) {
  if (next_ == rows_.size()) return false;
  Request& request = *rows_[next_++];
  lock.unlock();
  request.compute_mask(clock_);
  lock.lock();
  if (--open_ == 0) done_.notify_one();
  return true;
}

void MaskPool::finish() {
  std::unique_lock lock(mutex_);
  while (compute_next(lock)) {
  }
  done_.wait(lock, [this] { return open_ == 0; });
}

void MaskPool::work() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!compute_next(lock)) more_.wait(lock);
  }
}

}  // namespace mlxs
