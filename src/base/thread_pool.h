// The compute pool: `threads` participants (the caller is one) that run a function over an index range
// together. Workers spin for some microseconds between parallel regions of a step, then park on a futex: an
// idle server uses no CPU. One caller at a time (the engine thread). Tasks must not throw.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace mlxs {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // 1 … 256; the caller counts as one
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  // Runs task(worker) once on every participant, worker = 0 … threads-1 (0 is the caller); returns when all
  // are done.
  template <class Task>
  void run(Task&& task) {
    using Plain = std::remove_reference_t<Task>;
    run_erased(
        +[](void* context, int worker) { (*static_cast<Plain*>(context))(worker); },
        const_cast<void*>(static_cast<const void*>(&task)));
  }

  // Splits [0, count) into items of `grain` that participants take dynamically: task(begin, end, worker).
  template <class Task>
  void parallel_for(std::int64_t count, std::int64_t grain, Task&& task);

 private:
  void run_erased(void (*function)(void*, int), void* context);
  std::int64_t take(std::int64_t grain);  // next start of the running parallel_for
  void reset_take();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

template <class Task>
void ThreadPool::parallel_for(std::int64_t count, std::int64_t grain, Task&& task) {
  if (count <= grain || threads() == 1) {
    if (count > 0) task(std::int64_t{0}, count, 0);
    return;
  }
  reset_take();
  run([&](int worker) {
    for (std::int64_t begin = take(grain); begin < count; begin = take(grain)) {
      task(begin, begin + grain < count ? begin + grain : count, worker);
    }
  });
}

}  // namespace mlxs
