#include "fleet/heartbeat.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "mlxs/error.h"

namespace mlxs {

std::chrono::milliseconds retry_pause(const HeartbeatTiming& timing, int failures) {
  auto pause = timing.first_retry;
  for (int i = 1; i < failures && pause < timing.longest_retry; ++i) pause *= 2;
  return std::min(pause, timing.longest_retry);
}

Heartbeat::Heartbeat(RedisUrl url, Instance instance, HeartbeatTiming timing)
    : url_(std::move(url)), redis_(url_), instance_(std::move(instance)), timing_(timing), thread_([this] {
        run();
      }) {}

Heartbeat::~Heartbeat() { stop(); }

bool Heartbeat::beat() {
  try {
    register_instance(redis_, instance_, timing_.lifetime);
  } catch (const Error& error) {
    if (failures_++ == 0) log::warn("registry: {}; serving goes on, trying again", error.full());
    return false;
  }
  if (failures_ > 0) log::info("registry: Redis at {} is back after {} tries", url_.address(), failures_);
  failures_ = 0;
  return true;
}

void Heartbeat::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    const auto pause = beat() ? timing_.interval : retry_pause(timing_, failures_);
    lock.lock();
    wake_.wait_for(lock, pause, [this] { return stopping_; });
  }
}

void Heartbeat::stop() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(stopping_, true)) return;
  }
  wake_.notify_all();
  thread_.join();
  try {
    deregister_instance(redis_, instance_.id);
  } catch (const Error& error) {
    log::warn("registry: {}; the entry of this server expires by itself", error.full());
  }
}

}  // namespace mlxs
