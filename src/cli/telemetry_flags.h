// What a server tells of itself: flags, the OTEL_* variables beneath them, and the parts that do the telling,
// put together for one server.
#pragma once

#include <CLI/CLI.hpp>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "serve/server.h"
#include "telemetry/flight_recorder.h"
#include "telemetry/metrics.h"
#include "telemetry/otel_exporter.h"
#include "telemetry/request_publisher.h"
#include "telemetry/stall_watch.h"

namespace mlxs::cli {

struct TelemetryFlags {
  std::string log_level, log_format;  // empty: as the environment says
  bool no_access_log = false, log_prompts = false;
  bool no_metrics = false;
  std::string otlp_endpoint, service_name;  // empty: as the environment says, as the next three
  std::vector<std::string> otlp_headers;    // NAME=VALUE
  std::optional<double> trace_sample;
  std::optional<int> metrics_interval_ms;
  int flight_steps = 10'000;  // 0: no flight recorder
  std::string flight_dir;     // empty: "flight" in the cache directory
  double stall_timeout_s = 30;
};
void add_telemetry_flags(CLI::App& command, TelemetryFlags& flags);

// How the log reads from now on; what is empty stays as it was.
void apply_log_flags(const TelemetryFlags& flags);

// The environment, with the flags on top. Throws kInvalidArgument.
OtelOptions otel_options(const TelemetryFlags& flags);

// Made before the engine: what it reports to.
class Telemetry {
 public:
  explicit Telemetry(const TelemetryFlags& flags);
  std::shared_ptr<EngineObserver> observer() const;                              // null: nothing is kept
  const std::shared_ptr<FlightRecorder>& recorder() const { return recorder_; }  // null: there is none
  void dump_flight(std::string_view reason) const;                               // says in the log where

 private:
  friend class TelemetryThreads;
  const TelemetryFlags flags_;
  const OtelOptions otel_;
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
  // Of GET /metrics; null: there is none. device: with what metal_optimizations did.
  std::function<std::string()> metrics(bool device) const;

 private:
  struct NowHolder {
    std::vector<EngineSchedulerStats> schedulers;
    std::vector<ModelInfo> models;
    const ServerCounters& server;
    ExportCounts exports{};
    MetricsNow view() const {
      return {.schedulers = schedulers, .models = models, .server = &server, .exports = &exports};
    }
  };
  NowHolder levels() const;

  const Telemetry& telemetry_;
  const Engine& engine_;
  const std::shared_ptr<ServerCounters> counters_ = std::make_shared<ServerCounters>();
  std::shared_ptr<OtelExporter> exporter_;       // null: nothing is exported
  std::shared_ptr<RequestPublisher> publisher_;  // null: nobody listens
  std::atomic<std::uint64_t> stalls_{0};
  std::optional<StallWatch> watch_;  // last: it uses the others
};

}  // namespace mlxs::cli
