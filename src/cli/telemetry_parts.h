// What a server tells of itself: the configuration, the OTEL_* variables beneath it, and the parts that do
// the telling, put together for one server.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "serve/server.h"
#include "telemetry/flight_recorder.h"
#include "telemetry/metrics.h"
#include "telemetry/otel_exporter.h"
#include "telemetry/request_publisher.h"
#include "telemetry/stall_watch.h"

namespace mlxs::cli {

// How the log reads from now on.
void apply_log_settings(const config::TelemetrySettings& settings);

// The OTEL_* variables, with the configuration in the place of those that it has keys for; flags go before
// the signals' own variables, too. Throws kInvalidArgument.
OtelOptions otel_options(const config::Config& config);

// Made before the engine: what it reports to.
class Telemetry {
 public:
  explicit Telemetry(const config::Config& config);
  std::shared_ptr<EngineObserver> observer() const;                              // null: nothing is kept
  const std::shared_ptr<FlightRecorder>& recorder() const { return recorder_; }  // null: there is none
  void dump_flight(std::string_view reason) const;                               // says in the log where

 private:
  friend class TelemetryThreads;
  const config::TelemetrySettings settings_;
  const bool device_metrics_;
  const OtelOptions otel_;
  mutable std::atomic<std::uint64_t> dumps_{0};
  std::shared_ptr<MetricsObserver> metrics_;  // null: none are kept
  std::shared_ptr<FlightRecorder> recorder_;
};

// The threads that read from both; made after the engine and before the server, so that they end in between.
class TelemetryThreads {
 public:
  TelemetryThreads(const Telemetry& telemetry, const Engine& engine);
  ~TelemetryThreads();
  TelemetryThreads(const TelemetryThreads&) = delete;
  TelemetryThreads& operator=(const TelemetryThreads&) = delete;

  void apply(ServerOptions& options) const;
  std::function<std::string()> metrics() const;  // of GET /metrics; null: there is none

 private:
  struct NowHolder {
    std::vector<EngineSchedulerStats> schedulers;
    std::vector<ModelInfo> models;
    const ServerCounters& server;
    ExportCounts exports{};
    std::optional<MetalOptimizationsStats> device{};
    MetricsNow view() const {
      return {.schedulers = schedulers,
              .models = models,
              .server = &server,
              .exports = &exports,
              .device = device ? &*device : nullptr};
    }
  };
  NowHolder levels() const;

  const Telemetry& telemetry_;
  const Engine& engine_;
  const std::shared_ptr<ServerCounters> counters_ = std::make_shared<ServerCounters>();
  std::shared_ptr<OtelExporter> exporter_;       // null: nothing is exported
  std::shared_ptr<RequestPublisher> publisher_;  // null: neither access log nor traces
  std::atomic<std::uint64_t> stalls_{0};
  std::optional<StallWatch> watch_;  // last: it uses the others
};

}  // namespace mlxs::cli
