#include "engine/step_loop.h"

#include <algorithm>

#include "base/thread_name.h"

namespace mlxs {
namespace {

std::int64_t nanoseconds(TimePoint time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

}  // namespace

StepLoop::StepLoop(std::unique_ptr<Backend> backend, const Clock& clock, std::unique_ptr<CommandRing> ring)
    : clock_(clock), backend_(std::move(backend)), ring_(std::move(ring)), thread_([this] { run(); }) {}

MetalOptimizationsStats StepLoop::optimization_stats() const {
  MetalOptimizationsStats stats = backend_->optimization_stats();
  if (ring_) stats.command_buffer_ring = ring_->stats();
  return stats;
}

void StepLoop::run() {
  name_this_thread("mlxs-engine");
  while (!stopping_) {
    const bool received = inbox_->drain();
    bool worked = false;
    for (const auto& model : models_) {
      step_started_ns_.store(nanoseconds(clock_.now()), std::memory_order_relaxed);
      if (places_.empty()) keep_places(1);
      worked |= model->step(models_.size() == 1);
      if (model->steps_under_way() > 0) keep_places(2);  // it began beside the one that has ended
      keep_places(model->steps_under_way());
      step_started_ns_.store(0, std::memory_order_relaxed);
    }
    if (worked) continue;
    if (received) {
      for (const auto& model : models_) model->publish_stats();
    }
    if (!stopping_ && !hold()) inbox_->wait();
  }
  for (const auto& model : models_)
    model->end_all(Error(ErrorCode::kCancelled, "the engine was disposed of"));
  models_.clear();
  running_.store(false, std::memory_order_release);
}

void StepLoop::settle() {
  for (const auto& model : models_) model->settle();
  keep_places(0);
}

void StepLoop::keep_places(int steps) {
  if (!ring_) return;
  while (static_cast<int>(places_.size()) < steps) places_.push_back(ring_->acquire());
  while (static_cast<int>(places_.size()) > steps) {
    ring_->release(places_.front());
    places_.pop_front();
  }
}

// While requests are held for others to join: a nap that ends before the window does. Windows are
// milliseconds.
bool StepLoop::hold() const {
  constexpr Duration kNap = std::chrono::microseconds(50);
  const bool held =
      std::ranges::any_of(models_, [](const auto& model) { return model->held_until().has_value(); });
  if (held) std::this_thread::sleep_for(kNap);
  return held;
}

void StepLoop::remove(const LoadedModel& model) {
  std::erase_if(models_, [&](const auto& other) { return other.get() == &model; });
}

void StepLoop::stop() {
  if (!thread_.joinable()) return;
  inbox_->post([this] { stopping_ = true; });
  inbox_->close();
  thread_.join();
  inbox_->drain();  // tasks that arrived while the loop ended: callers wait for them
}

double StepLoop::step_age_seconds() const {
  const std::int64_t started = step_started_ns_.load(std::memory_order_relaxed);
  return started == 0 ? 0.0 : static_cast<double>(nanoseconds(clock_.now()) - started) * 1e-9;
}

}  // namespace mlxs
