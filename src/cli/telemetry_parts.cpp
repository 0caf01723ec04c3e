#include "cli/telemetry_parts.h"

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
#include "telemetry/observers.h"

namespace mlxs::cli {
namespace {

std::string instance_id() {
  std::random_device random;
  return fmt::format("{:08x}{:08x}-{}", random(), random(), getpid());
}

// The standard's variables that are keys, too.
constexpr std::pair<std::string_view, std::string_view> kStandard[] = {
    {"OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"},
    {"OTEL_EXPORTER_OTLP_HEADERS", "telemetry.otlp_headers"},
    {"OTEL_EXPORTER_OTLP_COMPRESSION", "telemetry.otlp_compression"},
    {"OTEL_SERVICE_NAME", "telemetry.service_name"},
    {"OTEL_TRACES_SAMPLER_ARG", "telemetry.trace_sample"},
    {"OTEL_METRIC_EXPORT_INTERVAL", "telemetry.export_interval_ms"},
};

// What the variable would have to say for the configuration to hold; empty: it says nothing of it.
std::string variable(const config::Config& config, std::string_view name) {
  for (const auto& [standard, path] : kStandard) {
    if (name != standard) continue;
    const config::Effective& key = config.of(path);
    return key.from == config::Effective::From::kDefault ? "" : config::to_text(key.value);
  }
  return otel_variable(std::string(name).c_str());
}

// Passes what a server tells on, to the metrics and to the log and the traces.
class Listener final : public RequestListener {
 public:
  Listener(std::shared_ptr<MetricsObserver> metrics, std::shared_ptr<RequestPublisher> publisher)
      : metrics_(std::move(metrics)), publisher_(std::move(publisher)) {}

  void on_choice_ended(const RequestTimeline& ended, const PromptChoices* last_of) override {
    if (metrics_) metrics_->on_choice_ended(ended, last_of);
  }
  void on_request_done(std::shared_ptr<const RequestTrace> trace) override {
    if (publisher_) publisher_->on_request_done(std::move(trace));
  }

 private:
  const std::shared_ptr<MetricsObserver> metrics_;     // null: none are kept
  const std::shared_ptr<RequestPublisher> publisher_;  // null: nobody asks
};

}  // namespace

OtelOptions otel_options(const config::Config& config) {
  const auto by_flag = [&config](std::string_view path) {
    return config.of(path).from == config::Effective::From::kFlag;
  };
  const auto get = [&config](const char* name) { return variable(config, name); };
  const config::TelemetrySettings& settings = config.settings.telemetry;
  // Refused under the name that it was given by.
  if (const config::Effective& headers = config.of("telemetry.otlp_headers"); !headers.where.empty())
    (void)parse_pairs(get("OTEL_EXPORTER_OTLP_HEADERS"), headers.where);
  OtelOptions options = otel_from_environment(get);
  if (by_flag("telemetry.otlp_endpoint")) {
    set_endpoint(options, settings.otlp_endpoint);
    check_protocols(options, get);
  }
  if (by_flag("telemetry.otlp_headers")) {
    options.traces_headers = parse_pairs(get("OTEL_EXPORTER_OTLP_HEADERS"), "--otlp-header");
    options.metrics_headers = options.traces_headers;
  }
  if (by_flag("telemetry.otlp_compression")) {
    options.traces_gzip = options.metrics_gzip = settings.otlp_compression == "gzip";
  }
  if (by_flag("telemetry.trace_sample")) options.sample_share = settings.trace_sample;
  validate(options);
  return options;
}

void apply_log_settings(const config::TelemetrySettings& settings) {
  if (LogFormat format{}; log::parse_format(settings.log_format, format)) log::set_format(format);
  log::set_level(settings.log_level);
}

Telemetry::Telemetry(const config::Config& config)
    : settings_(config.settings.telemetry),
      device_metrics_(config.settings.engine.metal_optimizations.expose_metrics),
      otel_(otel_options(config)) {
  if (settings_.metrics) metrics_ = std::make_shared<MetricsObserver>();
  if (!settings_.metrics && !otel_.metrics_url.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("telemetry.metrics is off ({}), but metrics are to be sent over OTLP",
                            config.of("telemetry.metrics").where),
                "leave one of them out, or set OTEL_METRICS_EXPORTER=none", "telemetry.metrics");
  }
  if (settings_.flight_steps == 0) return;
  const std::filesystem::path folder = settings_.flight_dir.empty()
                                           ? cache_directory() / "flight"
                                           : std::filesystem::path(settings_.flight_dir);
  recorder_ = std::make_shared<FlightRecorder>(
      FlightOptions{.steps = static_cast<std::size_t>(settings_.flight_steps), .directory = folder},
      MLXS_VERSION);
  try {
    recorder_->dump_on_crash();
  } catch (const Error& error) {  // a folder that was asked for must be there; the usual one may be missing
    if (!settings_.flight_dir.empty()) throw;
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
    ++dumps_;
    log::warn("{}: the last {} steps are in {} (mlx-serving trace FILE shows them)", reason,
              std::min<std::uint64_t>(recorder_->steps_recorded(),
                                      static_cast<std::uint64_t>(settings_.flight_steps)),
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
  const bool access_log = telemetry.settings_.access_log;
  if (access_log || exporter_) publisher_ = std::make_shared<RequestPublisher>(access_log, exporter_);
  if (telemetry.recorder_ && telemetry.settings_.stall_timeout_ms > 0) {
    watch_.emplace(
        std::chrono::milliseconds(telemetry.settings_.stall_timeout_ms),
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
  if (telemetry_.device_metrics_) now.device = engine_.metal_optimizations_stats();
  now.exports.stalls = stalls_;
  now.exports.flight_dumps = telemetry_.dumps_;
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
  if (telemetry_.metrics_ || publisher_) {
    options.listener = std::make_shared<Listener>(telemetry_.metrics_, publisher_);
  }
  if (telemetry_.metrics_) {
    options.throughput = [metrics = telemetry_.metrics_] { return metrics->throughput(); };
  }
  options.counters = counters_;
  options.tracing = !telemetry_.otel_.traces_url.empty();
  options.trace_share = telemetry_.otel_.sample_share;
  options.log_prompts = telemetry_.settings_.log_prompts;
}

std::function<std::string()> TelemetryThreads::metrics() const {
  if (!telemetry_.metrics_) return nullptr;
  return [this] {
    const NowHolder now = levels();
    return telemetry_.metrics_->render(now.view());
  };
}

}  // namespace mlxs::cli
