// Passes what the engine tells on to several observers, in order.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "mlxs/observer.h"

namespace mlxs {

class Observers final : public EngineObserver {
 public:
  explicit Observers(std::vector<std::shared_ptr<EngineObserver>> observers) : all_(std::move(observers)) {}

  void on_first_token(std::string_view model, double ttft_seconds) override {
    for (const auto& one : all_) one->on_first_token(model, ttft_seconds);
  }
  void on_inter_token(std::string_view model, double seconds) override {
    for (const auto& one : all_) one->on_inter_token(model, seconds);
  }
  void on_finished(const RequestRecord& record) override {
    for (const auto& one : all_) one->on_finished(record);
  }
  void on_step(const StepRecord& record) override {
    for (const auto& one : all_) one->on_step(record);
  }
  void on_request(const RequestEvent& event) override {
    for (const auto& one : all_) one->on_request(event);
  }

 private:
  const std::vector<std::shared_ptr<EngineObserver>> all_;
};

}  // namespace mlxs
