#include "cli/telemetry_flags.h"

#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/log_control.h"
#include "formats/catalog.h"
#include "mlxs/error.h"
#include "telemetry/metal_metrics.h"
#include "telemetry/observers.h"

namespace mlxs::cli {
namespace {

std::string instance_id() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}-{}", random(), random(), getpid());
}

void add_flight_flags(CLI::App& command, TelemetryFlags& flags, const std::string& group);

}  // namespace

void add_telemetry_flags(CLI::App& command, TelemetryFlags& flags) {
  const std::string group = "Logs, metrics, traces";
  command
      .add_option("--log-level", flags.log_level,
                  "debug, info, warn, error or off (also MLXS_LOG_LEVEL); SIGUSR2 turns debug on and off")
      ->check(CLI::IsMember({"debug", "info", "warn", "error", "off"}))
      ->group(group);
  command.add_option("--log-format", flags.log_format, "json or pretty (also MLXS_LOG_FORMAT)")
      ->check(CLI::IsMember({"json", "pretty"}))
      ->group(group);
  command.add_flag("--no-access-log", flags.no_access_log, "No line for each request")->group(group);
  command.add_flag("--log-prompts", flags.log_prompts, "Prompts stand in the access log")->group(group);
  command.add_flag("--no-metrics", flags.no_metrics, "Keep no metrics; GET /metrics answers 404")
      ->group(group);
  command
      .add_option("--otlp-endpoint", flags.otlp_endpoint,
                  "Send OpenTelemetry traces and metrics there, over OTLP/HTTP: http://HOST:4318 (also "
                  "OTEL_EXPORTER_OTLP_ENDPOINT)")
      ->group(group);
  command
      .add_option("--otlp-header", flags.otlp_headers,
                  "NAME=VALUE, sent along; may be repeated (also OTEL_EXPORTER_OTLP_HEADERS)")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group(group);
  command
      .add_option("--service-name", flags.service_name,
                  "service.name of what is sent (default: mlx-serving; also OTEL_SERVICE_NAME)")
      ->group(group);
  command
      .add_option(
          "--trace-sample", flags.trace_sample,
          "Share of traces to send, 0 … 1 (default: 0.1; also OTEL_TRACES_SAMPLER_ARG); errors and missed "
          "targets always are")
      ->check(CLI::Range(0.0, 1.0, "0..1"))
      ->group(group);
  command
      .add_option("--otlp-metrics-interval-ms", flags.metrics_interval_ms,
                  "Between two exports of metrics (default: 60000; also OTEL_METRIC_EXPORT_INTERVAL)")
      ->check(CLI::Range(100, 3'600'000, "100..3600000"))
      ->group(group);
  add_flight_flags(command, flags, group);
}

namespace {

void add_flight_flags(CLI::App& command, TelemetryFlags& flags, const std::string& group) {
  command
      .add_option("--flight-steps", flags.flight_steps,
                  "Steps that the flight recorder keeps, for `trace`; 0: none")
      ->check(CLI::Range(0, 1'000'000, "0..1000000"))
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--flight-dir", flags.flight_dir,
                  "Where it writes them at SIGUSR1, a stall or a crash (default: flight in the cache folder)")
      ->group(group);
  command
      .add_option("--stall-timeout", flags.stall_timeout_s,
                  "Seconds without a finished step, while there is work, that count as a stall; 0: never")
      ->check(CLI::Range(0.0, 86400.0, "0..86400"))
      ->capture_default_str()
      ->group(group);
}

}  // namespace

OtelOptions otel_options(const TelemetryFlags& flags) {
  OtelOptions options = otel_from_environment();
  if (!flags.otlp_endpoint.empty()) set_endpoint(options, flags.otlp_endpoint);
  for (const std::string& header : flags.otlp_headers) {
    for (auto& pair : parse_pairs(header, "--otlp-header")) {
      options.traces_headers.push_back(pair);
      options.metrics_headers.push_back(std::move(pair));
    }
  }
  if (!flags.service_name.empty()) options.service_name = flags.service_name;
  if (flags.trace_sample) options.sample_share = *flags.trace_sample;
  if (flags.metrics_interval_ms) options.metrics_interval_ms = *flags.metrics_interval_ms;
  validate(options);
  if (!flags.otlp_endpoint.empty()) check_protocols(options);  // else the environment's own reading did
  return options;
}

void apply_log_flags(const TelemetryFlags& flags) {
  if (!flags.log_level.empty()) log::set_level(flags.log_level);
  if (LogFormat format{}; log::parse_format(flags.log_format, format)) log::set_format(format);
}

Telemetry::Telemetry(const TelemetryFlags& flags) : flags_(flags), otel_(otel_options(flags)) {
  if (!flags.no_metrics) metrics_ = std::make_shared<MetricsObserver>();
  if (flags.no_metrics && !otel_.metrics_url.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "--no-metrics, but metrics are to be sent over OTLP",
                "leave one of them out, or set OTEL_METRICS_EXPORTER=none");
  }
  if (flags.flight_steps == 0) return;
  const std::filesystem::path folder =
      flags.flight_dir.empty() ? cache_directory() / "flight" : std::filesystem::path(flags.flight_dir);
  recorder_ = std::make_shared<FlightRecorder>(
      FlightOptions{.steps = static_cast<std::size_t>(flags.flight_steps), .directory = folder},
      MLXS_VERSION);
  try {
    recorder_->dump_on_crash();
  } catch (const Error& error) {  // a folder that was asked for must be there; the usual one may be missing
    if (!flags.flight_dir.empty()) throw;
    log::warn("a crash would leave no dump of the last steps: {}", error.full());
  }
}

std::shared_ptr<EngineObserver> Telemetry::observer() const {
  if (metrics_ && recorder_) {
    return std::make_shared<Observers>(std::vector<std::shared_ptr<EngineObserver>>{metrics_, recorder_});
  }
  if (metrics_) return metrics_;
  return recorder_;
}

void Telemetry::dump_flight(std::string_view reason) const {
  if (!recorder_) {
    log::warn("{}: there is no flight recorder (--flight-steps 0)", reason);
    return;
  }
  try {
    const std::string path = recorder_->dump(reason).string();
    log::warn(
        "{}: the last {} steps are in {} (mlx-serving trace FILE shows them)", reason,
        std::min<std::uint64_t>(recorder_->steps_recorded(), static_cast<std::uint64_t>(flags_.flight_steps)),
        path);
  } catch (const Error& error) {
    log::error("{}: {}", reason, error.full());
  }
}

TelemetryThreads::TelemetryThreads(const Telemetry& telemetry, const Engine& engine)
    : telemetry_(telemetry), engine_(engine) {
  if (telemetry.otel_.any()) {
    exporter_ = std::make_shared<OtelExporter>(telemetry.otel_, MLXS_VERSION, instance_id(), [this] {
      const NowHolder now = levels();
      return telemetry_.metrics_->families(now.view());
    });
    exporter_->start();
    log::info("OTLP: traces to {}, metrics to {}",
              telemetry.otel_.traces_url.empty() ? "nobody" : telemetry.otel_.traces_url,
              telemetry.otel_.metrics_url.empty() ? "nobody" : telemetry.otel_.metrics_url);
  }
  const bool access_log = !telemetry.flags_.no_access_log;
  if (access_log || exporter_) publisher_ = std::make_shared<RequestPublisher>(access_log, exporter_);
  if (telemetry.recorder_ && telemetry.flags_.stall_timeout_s > 0) {
    watch_.emplace(
        from_seconds(telemetry.flags_.stall_timeout_s),
        [this] {
          const EngineHealth health = engine_.health();
          return StallProbe{.steps = telemetry_.recorder_->steps_recorded(),
                            .busy = health.active_requests > 0 || health.last_step_age_seconds > 0};
        },
        [this](double seconds) {
          ++stalls_;
          log::error("stall: no step has ended for {:.1f} s, and there is work", seconds);
          telemetry_.dump_flight("stall");
        });
  }
}

TelemetryThreads::~TelemetryThreads() {
  watch_.reset();
  if (publisher_) publisher_->stop();
  if (exporter_) exporter_->stop();
}

TelemetryThreads::NowHolder TelemetryThreads::levels() const {
  NowHolder now{
      .schedulers = engine_.scheduler_stats(), .models = engine_.list_models(), .server = *counters_};
  now.exports.stalls = stalls_;
  if (publisher_) now.exports.requests_unreported = publisher_->dropped();
  if (exporter_) {
    const OtelStats sent = exporter_->stats();
    now.exports.traces_sent = sent.traces_sent;
    now.exports.traces_dropped = sent.traces_dropped;
    now.exports.metrics_sent = sent.metrics_sent;
    now.exports.failures = sent.failures;
  }
  return now;
}

void TelemetryThreads::apply(ServerOptions& options) const {
  options.listener = publisher_;
  options.counters = counters_;
  options.tracing = !telemetry_.otel_.traces_url.empty();
  options.trace_share = telemetry_.otel_.sample_share;
  options.log_prompts = telemetry_.flags_.log_prompts;
}

std::function<std::string()> TelemetryThreads::metrics(bool device) const {
  if (!telemetry_.metrics_) return nullptr;
  return [this, device] {
    const NowHolder now = levels();
    std::string page = telemetry_.metrics_->render(now.view());
    if (device) page += metal_metrics(engine_.metal_optimizations_stats());
    return page;
  };
}

}  // namespace mlxs::cli
