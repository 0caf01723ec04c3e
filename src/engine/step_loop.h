// The engine thread of one device: takes arrivals, runs one step of every model that has work, parks when
// none has. Owns the thread, the backend and the set of served models. Everything that touches a model's
// state or the backend runs here, as a task between steps; while one is under way, none that uses the
// backend. The loop never throws; stop() ends it after the running step.
#pragma once

#include <atomic>
#include <deque>
#include <exception>
#include <future>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "backend/command_ring.h"
#include "backend/ops.h"
#include "base/clock.h"
#include "engine/inbox.h"
#include "engine/loaded_model.h"

namespace mlxs {

class StepLoop {
 public:
  // ring: places for steps that are under way at once; null: as many as there are.
  StepLoop(std::unique_ptr<Backend> backend, const Clock& clock, std::unique_ptr<CommandRing> ring = nullptr);
  ~StepLoop() { stop(); }
  StepLoop(const StepLoop&) = delete;
  StepLoop& operator=(const StepLoop&) = delete;

  const std::shared_ptr<Inbox>& inbox() const { return inbox_; }

  // Runs task(backend) on the engine thread while no step is under way, and waits; exceptions come back. Not
  // from the engine thread.
  template <class Task>
  auto call(Task&& task) {
    using Result = std::invoke_result_t<Task, Backend&>;
    std::packaged_task<Result()> packaged([&] { return task(*backend_); });
    std::future<Result> result = packaged.get_future();
    if (!inbox_->post([&] { settle(), packaged(); })) {
      throw Error(ErrorCode::kUnavailable, "the engine was disposed of", "create a new one");
    }
    return result.get();
  }

  // Engine thread (inside a task).
  void add(std::shared_ptr<LoadedModel> model) { models_.push_back(std::move(model)); }
  void remove(const LoadedModel& model);

  void stop();  // idempotent, any thread but the engine's
  bool running() const { return running_.load(std::memory_order_acquire); }
  MetalOptimizationsStats optimization_stats() const;  // any thread
  // Seconds that the running step has taken so far; 0 between steps.
  double step_age_seconds() const;

 private:
  void run();
  bool hold() const;
  void settle();
  void keep_places(int steps);  // of the ring, for so many steps under way

  const Clock& clock_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<CommandRing> ring_;
  std::deque<int> places_;  // of it that are taken
  std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  std::vector<std::shared_ptr<LoadedModel>> models_;  // engine thread only
  bool stopping_ = false;                             // engine thread only
  std::atomic<bool> running_{true};
  std::atomic<std::int64_t> step_started_ns_{0};  // 0: no step runs
  std::thread thread_;
};

}  // namespace mlxs
