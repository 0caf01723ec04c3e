// What the engine does, as Prometheus metrics under vLLM's names, types and buckets, one series a model; what
// vLLM does not show under mlxs_. Observing costs a few relaxed atomic additions and no lock; a scrape reads
// the atomics and never holds up a step. Thread-safe; allocates when it meets a model or a tenant for the
// first time. Every label has few values: models, tenants (64, then "(others)"), and words that stand here.
#pragma once

#include <prometheus/metric_family.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "mlxs/engine.h"
#include "mlxs/observer.h"
#include "telemetry/request_log.h"
#include "telemetry/server_counters.h"
#include "telemetry/sliding_rate.h"

namespace mlxs {

// The levels of this moment, from those who know them.
struct MetricsNow {
  std::span<const EngineSchedulerStats> schedulers;
  std::span<const ModelInfo> models;
  const ServerCounters* server = nullptr;           // null: there is none
  const ExportCounts* exports = nullptr;            // of logs and traces; null: nothing is exported
  const MetalOptimizationsStats* device = nullptr;  // null: they are not shown
};

class MetricsObserver final : public EngineObserver {
 public:
  MetricsObserver();  // by the steady clock
  explicit MetricsObserver(const Clock& clock);
  ~MetricsObserver() override;
  MetricsObserver(const MetricsObserver&) = delete;
  MetricsObserver& operator=(const MetricsObserver&) = delete;

  void on_first_token(std::string_view model, double ttft_seconds) override;
  void on_inter_token(std::string_view model, double seconds) override;
  void on_finished(const RequestRecord& record) override;
  void on_step(const StepRecord& record) override;
  // A choice of a prompt of a server's request; last_of: its prompt's, if all of them have ended now.
  void on_choice_ended(const RequestTimeline& ended, const PromptChoices* last_of);

  // Everything observed so far and the levels of this moment.
  std::vector<prometheus::MetricFamily> families(const MetricsNow& now) const;
  // The same in the Prometheus text format.
  std::string render(const MetricsNow& now) const;
  std::vector<ThroughputNow> throughput() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Name, type, labels and meaning of every metric: the rows of a table in Markdown.
std::string metrics_reference();

}  // namespace mlxs
