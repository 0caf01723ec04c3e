// Keeps one instance registered: a thread of its own renews the entry until stop() removes it.
// A Redis that is away never reaches the caller: it is logged once, tried again with growing pauses, and
// logged when back.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "fleet/registry.h"

namespace mlxs {

struct HeartbeatTiming {
  std::chrono::milliseconds interval = std::chrono::seconds(5);
  std::chrono::milliseconds lifetime = std::chrono::seconds(15);  // of an entry nobody renews
  std::chrono::milliseconds first_retry = std::chrono::milliseconds(500);
  std::chrono::milliseconds longest_retry = std::chrono::seconds(30);
};

// The pause before try number `failures` + 1: doubles from first_retry up to longest_retry.
std::chrono::milliseconds retry_pause(const HeartbeatTiming& timing, int failures);

class Heartbeat {
 public:
  Heartbeat(RedisUrl url, Instance instance, HeartbeatTiming timing = {});
  ~Heartbeat();  // stop()
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  void stop();  // idempotent: ends the thread, then removes the entry if Redis can be reached

 private:
  void run();
  bool beat();  // true: the entry is renewed

  RedisUrl url_;
  RedisClient redis_;
  Instance instance_;
  HeartbeatTiming timing_;
  int failures_ = 0;  // in a row; the thread's own
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;  // last: starts when everything else is there
};

}  // namespace mlxs
