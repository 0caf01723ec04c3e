#include "base/thread_pool.h"

#include <atomic>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mlxs {
namespace {

// Long enough to bridge the gap between two ops of a step, short enough that an idle server sleeps at once.
constexpr int kSpins = 20'000;

inline void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

struct ThreadPool::Impl {
  void (*function)(void*, int) = nullptr;
  void* context = nullptr;
  alignas(64) std::atomic<std::uint32_t> epoch{0};    // one more for every parallel region
  alignas(64) std::atomic<std::uint32_t> running{0};  // workers that have not finished the region yet
  alignas(64) std::atomic<std::int64_t> next{0};
  std::atomic<bool> stopping{false};
  std::vector<std::thread> workers;

  void work(int worker) {
    std::uint32_t seen = 0;
    for (;;) {
      int spins = 0;
      while (epoch.load(std::memory_order_acquire) == seen) {
        if (++spins < kSpins) {
          relax();
        } else {
          epoch.wait(seen, std::memory_order_acquire);
        }
      }
      ++seen;
      if (stopping.load(std::memory_order_relaxed)) return;
      function(context, worker);
      if (running.fetch_sub(1, std::memory_order_release) == 1) running.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  for (int worker = 1; worker < threads; ++worker) {
    impl_->workers.emplace_back([impl = impl_.get(), worker] { impl->work(worker); });
  }
}

ThreadPool::~ThreadPool() {
  impl_->stopping.store(true, std::memory_order_relaxed);
  impl_->epoch.fetch_add(1, std::memory_order_release);
  impl_->epoch.notify_all();
  for (std::thread& worker : impl_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(impl_->workers.size()) + 1; }

void ThreadPool::run_erased(void (*function)(void*, int), void* context) {
  Impl& pool = *impl_;
  if (pool.workers.empty()) return function(context, 0);
  pool.function = function;
  pool.context = context;
  pool.running.store(static_cast<std::uint32_t>(pool.workers.size()), std::memory_order_relaxed);
  pool.epoch.fetch_add(1, std::memory_order_release);
  pool.epoch.notify_all();
  function(context, 0);
  int spins = 0;
  for (std::uint32_t left; (left = pool.running.load(std::memory_order_acquire)) != 0;) {
    if (++spins < kSpins) {
      relax();
    } else {
      pool.running.wait(left, std::memory_order_acquire);
    }
  }
}

std::int64_t ThreadPool::take(std::int64_t grain) {
  return impl_->next.fetch_add(grain, std::memory_order_relaxed);
}
void ThreadPool::reset_take() { impl_->next.store(0, std::memory_order_relaxed); }

}  // namespace mlxs
