// What OpenTelemetry's export is told: plain values, their defaults, and the standard environment variables.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mlxs {

struct OtelOptions {
  // Where to, whole URLs (…/v1/traces, …/v1/metrics). Empty: that signal is not exported.
  std::string traces_url, metrics_url;
  std::vector<std::pair<std::string, std::string>> traces_headers, metrics_headers;
  bool traces_gzip = false, metrics_gzip = false;  // bodies are compressed
  std::string certificate_file;                    // whom to trust instead of the system's; PEM
  std::string service_name = "mlx-serving";
  std::vector<std::pair<std::string, std::string>> resource_attributes;
  double sample_share = 0.1;  // of traces that begin here
  bool follow_parent = true;  // a caller's decision goes before the share
  bool keep_failures = true;  // errors and missed targets are exported all the same
  int timeout_ms = 10'000;    // of one export
  int metrics_interval_ms = 60'000;
  int batch_delay_ms = 5'000;                     // for how long finished traces gather
  std::size_t max_batch = 128, max_queue = 2048;  // requests; the oldest go when the queue is full

  bool any() const { return !traces_url.empty() || !metrics_url.empty(); }
};

// An endpoint as OTEL_EXPORTER_OTLP_ENDPOINT has it: the signals' paths are added to it.
void set_endpoint(OtelOptions& options, std::string_view endpoint);
// "name=value,name=value", values percent-encoded. Throws kInvalidArgument that names `source`.
std::vector<std::pair<std::string, std::string>> parse_pairs(std::string_view text, std::string_view source);

// The OTEL_* variables, as `get` answers them (empty: not set). Throws kInvalidArgument for one whose value
// cannot be honoured. Without an endpoint nothing is exported.
OtelOptions otel_from_environment(const std::function<std::string(const char*)>& get);
std::string otel_variable(const char* name);  // of the process, trimmed
// Where flags gave the endpoint: does the environment ask for a protocol that is not spoken? Throws
// kInvalidArgument.
void check_protocols(const OtelOptions& options, const std::function<std::string(const char*)>& get);

// Ranges of what flags and configuration files say, too; throws kInvalidArgument.
void validate(const OtelOptions& options);

}  // namespace mlxs
