#include "backend/copy_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/log.h"
#include "base/thread_priority.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

void check_copy(std::size_t bytes, const void* from, const void* to, std::size_t room, std::size_t offset) {
  const auto fail = [](const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument, "a copy " + what, "a bug of the caller");
  };
  if (from == nullptr || to == nullptr) fail("without memory");
  if (bytes == 0) fail("of no bytes");
  if (offset > room || bytes > room - offset)
    fail(fmt::format("of {} bytes at {} of a buffer of {}", bytes, offset, room));
}

}  // namespace

CopyQueue::CopyQueue(const MetalOptimizations::BlitQueue& options)
    : options_(options), thread_([this] { run(); }) {
  stats_.enabled = true;
}

CopyQueue::~CopyQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::uint64_t CopyQueue::upload(std::span<const std::byte> from, std::span<std::byte> device,
                                std::size_t offset, Done done) {
  check_copy(from.size(), from.data(), device.data(), device.size(), offset);
  return add({0, from.data(), device.data() + offset, from.size(), true, std::move(done)});
}

std::uint64_t CopyQueue::download(std::span<const std::byte> device, std::size_t offset,
                                  std::span<std::byte> to, Done done) {
  check_copy(to.size(), device.data(), to.data(), device.size(), offset);
  return add({0, device.data() + offset, to.data(), to.size(), false, std::move(done)});
}

std::uint64_t CopyQueue::add(Copy copy) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return pending_.size() < static_cast<std::size_t>(options_.max_pending_ops); });
  const std::uint64_t id = copy.id = ++last_id_;
  pending_.push_back(std::move(copy));
  lock.unlock();
  changed_.notify_all();
  if (!options_.use_shared_events) wait(id);
  return id;
}

void CopyQueue::run() {
  set_thread_priority(options_.queue_priority - 1);
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !pending_.empty(); });
    if (pending_.empty()) return;
    const Copy& copy = pending_.front();  // a deque: others at its end do not move it
    lock.unlock();
    const Clock::time_point begin = Clock::now();
    std::memcpy(copy.to, copy.from, copy.bytes);
    const double ms = ms_since(begin);
    if (options_.verbose_logging) {
      log::debug("blit queue: {} {} of {} bytes in {:.3f} ms", copy.upload ? "upload" : "download", copy.id,
                 copy.bytes, ms);
    }
    if (copy.done) copy.done(copy.id);
    lock.lock();
    last_done_ = copy.id;
    if (options_.track_metrics) {
      ++(copy.upload ? stats_.total_uploads : stats_.total_downloads);
      (copy.upload ? stats_.upload_ms : stats_.download_ms) += ms;
      if (copy.upload) stats_.uploaded_bytes += copy.bytes;
    }
    pending_.pop_front();
    changed_.notify_all();
  }
}

bool CopyQueue::wait(std::uint64_t id, int timeout_ms) {
  std::unique_lock lock(mutex_);
  if (id == 0 || id > last_id_) return false;
  if (last_done_ >= id) return true;
  const Clock::time_point begin = Clock::now();
  const auto done = [&] { return last_done_ >= id; };
  if (timeout_ms == 0) {
    changed_.wait(lock, done);
  } else {
    changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), done);
  }
  if (options_.track_metrics) {
    ++stats_.sync_wait_count;
    stats_.sync_wait_ms += ms_since(begin);
  }
  return done();
}

bool CopyQueue::completed(std::uint64_t id) const {
  const std::lock_guard lock(mutex_);
  return id != 0 && id <= last_done_;
}

void CopyQueue::wait_all() {
  std::uint64_t last = 0;
  {
    const std::lock_guard lock(mutex_);
    last = last_id_;
  }
  wait(last);
}

BlitQueueStats CopyQueue::stats() const {
  const std::lock_guard lock(mutex_);
  BlitQueueStats now = stats_;
  now.total_overlap_ms = std::max(0.0, now.upload_ms + now.download_ms - now.sync_wait_ms);
  return now;
}

void CopyQueue::reset_stats() {
  const std::lock_guard lock(mutex_);
  stats_ = {.enabled = true};
}

}  // namespace mlxs
