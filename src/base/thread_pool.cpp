// The pool's barrier: an epoch counter starts a region, a countdown ends it. Both are spun on for a bounded
// time and then waited for in the kernel, so that a preempted or idle thread costs its peers microseconds,
// not a core.
#include "base/thread_pool.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include "mlxs/error.h"

namespace mlxs {
namespace {

// Longer than the serial parts of a step, shorter than anybody would notice on an idle machine.
constexpr auto kSpin = std::chrono::microseconds(100);

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

int available_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

struct ThreadPool::Impl {
  struct alignas(64) Taken {
    std::atomic<std::int64_t> next{0};
  };
  // One cache line each: what the caller writes, what the workers count down, what all of them take from.
  alignas(64) std::atomic<std::uint32_t> epoch{0};
  void (*function)(void*, int) = nullptr;
  void* context = nullptr;
  alignas(64) std::atomic<std::int32_t> pending{0};
  alignas(64) std::atomic<std::int64_t> next{0};
  // Zero if there are more threads than processors: a spinner would only be in the way.
  std::chrono::nanoseconds spin = kSpin;
  std::vector<Taken> shares;  // one a participant
  std::vector<std::thread> workers;

  // Returns when value != old. Spins, then sleeps in the kernel (atomic::wait on four bytes is a futex).
  template <class T>
  void wait_for_change(const std::atomic<T>& value, T old) const {
    if (spin.count() > 0) {
      const auto end = std::chrono::steady_clock::now() + spin;
      do {
        for (int i = 0; i < 32; ++i) {
          if (value.load(std::memory_order_acquire) != old) return;
          relax();
        }
      } while (std::chrono::steady_clock::now() < end);
    }
    value.wait(old, std::memory_order_acquire);
  }

  void work(int worker) {
    std::uint32_t seen = 0;
    for (;;) {
      wait_for_change(epoch, seen);
      ++seen;
      if (function == nullptr) return;
      function(context, worker);
      if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1) pending.notify_one();
    }
  }

  void start_region(void (*run)(void*, int), void* run_context) {
    function = run;
    context = run_context;
    pending.store(static_cast<std::int32_t>(workers.size()), std::memory_order_relaxed);
    epoch.fetch_add(1, std::memory_order_seq_cst);
    epoch.notify_all();  // no system call unless somebody sleeps
  }

  void stop() {
    start_region(nullptr, nullptr);
    for (std::thread& worker : workers) worker.join();
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  if (threads < 1 || threads > 256) {
    throw Error(ErrorCode::kInvalidArgument, fmt::format("{} compute threads are outside 1 … 256", threads),
                {}, "threads");
  }
  if (threads > available_cpus()) impl_->spin = std::chrono::nanoseconds(0);
  impl_->shares = std::vector<Impl::Taken>(static_cast<std::size_t>(threads));
  impl_->workers.reserve(static_cast<std::size_t>(threads - 1));
  try {
    for (int worker = 1; worker < threads; ++worker) {
      impl_->workers.emplace_back([impl = impl_.get(), worker] { impl->work(worker); });
    }
  } catch (const std::system_error& error) {
    const std::size_t started = impl_->workers.size() + 1;
    impl_->stop();
    throw Error(ErrorCode::kOutOfMemory,
                fmt::format("the system gave {} of {} compute threads: {}", started, threads, error.what()),
                "ask for fewer with --threads, or raise the process limit (ulimit -u)");
  }
}

ThreadPool::~ThreadPool() { impl_->stop(); }

int ThreadPool::threads() const { return static_cast<int>(impl_->workers.size()) + 1; }

void ThreadPool::run_erased(void (*function)(void*, int), void* context) {
  Impl& impl = *impl_;
  if (impl.workers.empty()) return function(context, 0);
  impl.start_region(function, context);
  function(context, 0);
  for (std::int32_t left = impl.pending.load(std::memory_order_acquire); left != 0;
       left = impl.pending.load(std::memory_order_acquire)) {
    impl.wait_for_change(impl.pending, left);
  }
}

std::int64_t ThreadPool::take(std::int64_t grain) {
  return impl_->next.fetch_add(grain, std::memory_order_relaxed);
}

void ThreadPool::reset_take() { impl_->next.store(0, std::memory_order_relaxed); }

std::int64_t ThreadPool::take_of_share(int owner, std::int64_t grain) {
  return impl_->shares[static_cast<std::size_t>(owner)].next.fetch_add(grain, std::memory_order_relaxed);
}

void ThreadPool::reset_shares() {
  for (Impl::Taken& taken : impl_->shares) taken.next.store(0, std::memory_order_relaxed);
}

}  // namespace mlxs
