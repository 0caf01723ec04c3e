// The keys of what a server tells of itself: log, metrics, traces, flight recorder.
#include "config/table.h"

namespace mlxs::config {

std::vector<Key> telemetry_keys() {
  return {
      MLXS_KEY("log.level", telemetry.log_level)
          .one_of({"trace", "debug", "info", "warn", "error", "critical", "off"})
          .env("KR_MLX_LOG_LEVEL")
          .flag("--log-level")
          .says("What is logged on stderr at first; SIGUSR2 turns debug on and off, PUT /v1/log sets it"),
      MLXS_KEY("log.format", telemetry.log_format)
          .one_of({"pretty", "json"})
          .flag("--log-format")
          .says("Lines for a person, or a JSON object each"),
      MLXS_KEY("log.access", telemetry.access_log)
          .off_flag("--no-access-log")
          .says("A line of the log for each request"),
      MLXS_KEY("log.prompts", telemetry.log_prompts)
          .flag("--log-prompts")
          .says("Prompts stand in the access log"),
      MLXS_KEY("telemetry.metrics", telemetry.metrics)
          .off_flag("--no-metrics")
          .says("Metrics are kept, for GET /metrics and OTLP"),
      MLXS_KEY("telemetry.otlp_endpoint", telemetry.otlp_endpoint)
          .env("OTEL_EXPORTER_OTLP_ENDPOINT")
          .flag("--otlp-endpoint")
          .says("Send OpenTelemetry traces and metrics there, over OTLP/HTTP: http://HOST:4318"),
      MLXS_KEY("telemetry.otlp_headers", telemetry.otlp_headers)
          .env("OTEL_EXPORTER_OTLP_HEADERS")
          .flag("--otlp-header")
          .hidden()
          .says("NAME=VALUE, sent along, percent-encoded; may be repeated"),
      MLXS_KEY("telemetry.otlp_compression", telemetry.otlp_compression)
          .one_of({"none", "gzip"})
          .env("OTEL_EXPORTER_OTLP_COMPRESSION")
          .flag("--otlp-compression")
          .says("Of what is sent"),
      MLXS_KEY("telemetry.service_name", telemetry.service_name)
          .env("OTEL_SERVICE_NAME")
          .flag("--service-name")
          .says("service.name of what is sent"),
      MLXS_KEY("telemetry.trace_sample", telemetry.trace_sample)
          .range(0, 1)
          .env("OTEL_TRACES_SAMPLER_ARG")
          .flag("--trace-sample")
          .says("Share of traces to send; those of errors and missed targets always are"),
      MLXS_KEY("telemetry.export_interval_ms", telemetry.export_interval_ms)
          .range(100, 3'600'000)
          .in("ms")
          .env("OTEL_METRIC_EXPORT_INTERVAL")
          .flag("--otlp-metrics-interval-ms")
          .says("Between two exports of metrics"),
      MLXS_KEY("telemetry.flight_steps", telemetry.flight_steps)
          .range(1, 1'000'000)
          .or_zero("none, and no dumps")
          .flag("--flight-steps")
          .says("Steps that the flight recorder keeps, for `trace`"),
      MLXS_KEY("telemetry.flight_dir", telemetry.flight_dir)
          .flag("--flight-dir")
          .says("Where it writes them at SIGUSR1, a stall or a crash; empty: flight in the cache folder"),
      MLXS_KEY("telemetry.stall_timeout_ms", telemetry.stall_timeout_ms)
          .range(1, kDayMs)
          .or_zero("never")
          .in("ms")
          .flag("--stall-timeout", 1000)
          .says("Without a finished step, while there is work: a stall"),
  };
}

}  // namespace mlxs::config
