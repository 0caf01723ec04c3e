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

  // The same, but each participant begins with its own share of [0, count), in order, and then helps the
  // others: what a participant wrote at some place of one range, it finds in its own cache at the same place
  // of the next one.
  template <class Task>
  void parallel_shares(std::int64_t count, std::int64_t grain, Task&& task) {
    parallel_shares(
        count, grain, [](auto&& work) { work(); }, task);
  }
  // Around what a participant does there: around(work) calls work() once.
  template <class Around, class Task>
  void parallel_shares(std::int64_t count, std::int64_t grain, Around&& around, Task&& task);

  // The share of parallel_shares(count, grain, …) that holds `index`: [begin, end), of participant `owner`.
  struct Share {
    std::int64_t begin = 0, end = 0;
    int owner = 0, owners = 1;
  };
  Share share_of(std::int64_t count, std::int64_t grain, std::int64_t index) const {
    if (count <= grain || threads() == 1) return {0, count, 0, 1};
    int owner = threads() - 1;
    while (share_begin(count, grain, owner) > index) --owner;
    return {share_begin(count, grain, owner), share_begin(count, grain, owner + 1), owner, threads()};
  }

 private:
  std::int64_t share_begin(std::int64_t count, std::int64_t grain, int owner) const {
    if (owner == threads()) return count;
    return (count + grain - 1) / grain * owner / threads() * grain;
  }
  void run_erased(void (*function)(void*, int), void* context);
  std::int64_t take(std::int64_t grain);  // next start of the running parallel_for
  void reset_take();
  void reset_shares();
  std::int64_t take_of_share(int owner, std::int64_t grain);  // next offset in the owner's share
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

template <class Around, class Task>
void ThreadPool::parallel_shares(std::int64_t count, std::int64_t grain, Around&& around, Task&& task) {
  const int shares = threads();
  if (count <= grain || shares == 1) {
    if (count > 0) around([&] { task(std::int64_t{0}, count, 0); });
    return;
  }
  reset_shares();
  run([&](int worker) {
    around([&] {
      for (int i = 0; i < shares; ++i) {
        const int owner = (worker + i) % shares;
        const std::int64_t start = share_begin(count, grain, owner);
        const std::int64_t end = share_begin(count, grain, owner + 1);
        for (std::int64_t begin = start + take_of_share(owner, grain); begin < end;
             begin = start + take_of_share(owner, grain)) {
          task(begin, begin + grain < end ? begin + grain : end, worker);
        }
      }
    });
  });
}

}  // namespace mlxs
