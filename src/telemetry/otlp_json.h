// OTLP as JSON: the bodies of POST /v1/traces and /v1/metrics. Pure.
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "telemetry/otel_options.h"
#include "telemetry/request_spans.h"

namespace mlxs {

// The service that tells: its name, version, instance and what else the options say. JSON of a resource.
std::string otlp_resource(const OtelOptions& options, std::string_view version, std::string_view instance);

// One request's spans, each as JSON, separated by commas; they belong to `trace`.
std::string otlp_spans(const TraceContext& trace, std::span<const Span> spans);
// spans: what otlp_spans() made, at least one.
std::string otlp_traces_body(std::string_view resource, std::string_view version,
                             std::span<const std::string> spans);

// Everything that Prometheus would scrape, cumulative since start_ns, and what the semantic conventions for
// generative AI name (gen_ai.server.…) made of it.
std::string otlp_metrics_body(std::string_view resource, std::string_view version,
                              const std::vector<prometheus::MetricFamily>& families, std::int64_t start_ns,
                              std::int64_t now_ns);

}  // namespace mlxs
