// LoadedModel's side of publishing: what a step has for its clients, on the way to them.
#include <thread>
#include <utility>

#include "backend/registry.h"
#include "engine/loaded_model.h"

namespace mlxs {

namespace {

// Where steps keep every core busy, a thread beside them only takes turns with them.
int ring_depth(const EngineOptions& engine, const Backend& backend) {
  if (engine.ring_depth > 0) return engine.ring_depth;
  const int busy = host_threads(backend, {.threads = engine.threads});
  return static_cast<int>(std::thread::hardware_concurrency()) > busy ? 2 : 1;
}

}  // namespace

void LoadedModel::make_publisher(const EngineOptions& engine, const Backend& backend) {
  const auto tell = [this](void (LoadedModel::*what)(RequestId)) {
    return [this, what](RequestId id) {
      inbox_->post([weak = weak_from_this(), what, id] {
        if (const auto model = weak.lock()) (model.get()->*what)(id);
      });
    };
  };
  publisher_ = std::make_unique<Publisher>(
      info_, *tokenizer_, observer_,
      Publisher::Signals{.stopped = tell(&LoadedModel::stop), .full = tell(&LoadedModel::pause)});
  tail_ = std::make_unique<StepTail>(ring_depth(engine, backend));
}

Delivery& LoadedModel::news_of(Request& request, TimePoint now) {
  if (news_.empty() || news_.back().request != &request) news_.push_back({.request = &request, .now = now});
  return news_.back();
}

void LoadedModel::deliver() {
  if (news_.empty()) return;
  // std::function wants copies, so the news travel in a shared holder.
  tail_->post([this, news = std::make_shared<std::vector<Delivery>>(std::exchange(news_, {}))] {
    publisher_->publish(*news);
  });
}

}  // namespace mlxs
