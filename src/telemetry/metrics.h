// What the engine does, as Prometheus metrics under vLLM's names, types and buckets, one series a model.
// Observing costs a few relaxed atomic additions and no lock; a scrape reads the atomics and never holds up a
// step. Thread-safe; allocates when it meets a model for the first time.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "mlxs/engine.h"
#include "mlxs/observer.h"

namespace mlxs {

class MetricsObserver final : public EngineObserver {
 public:
  MetricsObserver();
  ~MetricsObserver() override;
  MetricsObserver(const MetricsObserver&) = delete;
  MetricsObserver& operator=(const MetricsObserver&) = delete;

  void on_first_token(std::string_view model, double ttft_seconds) override;
  void on_inter_token(std::string_view model, double seconds) override;
  void on_finished(const RequestRecord& record) override;
  void on_step(const StepRecord& record) override;

  // Everything observed so far and, from `now`, the gauges of this moment, in the Prometheus text format.
  std::string render(std::span<const EngineSchedulerStats> now) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mlxs
