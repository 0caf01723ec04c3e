// What follows a step (detokenizing, publishing) and what its sampling waits for (grammar masks) run on a
// thread of their own while the backend runs the next step. Tasks run in order. With depth 1 there is no
// thread: tasks run at once, on the caller's. Owned by a model; used by the engine thread. Tasks must not
// throw.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace mlxs {

class StepTail {
 public:
  static constexpr int kDeepest = 3;

  explicit StepTail(int depth);
  ~StepTail();  // runs what is left first
  StepTail(const StepTail&) = delete;
  StepTail& operator=(const StepTail&) = delete;

  void post(std::function<void()> task);
  // Waits until the results of fewer than `depth` steps are in work, the next one's included.
  void wait_for_room();
  void finish();  // waits until every task ran

  int depth() const { return depth_; }

 private:
  void run();
  void wait_for(std::size_t most);

  const int depth_;
  std::mutex mutex_;
  std::condition_variable more_, fewer_;
  std::deque<std::function<void()>> tasks_;  // the front one runs
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace mlxs
