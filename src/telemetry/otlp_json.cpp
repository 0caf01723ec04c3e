#include "telemetry/otlp_json.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace mlxs {
namespace {

using Json = nlohmann::ordered_json;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr int kCumulative = 2, kSpanInternal = 1, kSpanServer = 2, kStatusError = 2;

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }
std::string number(std::int64_t value) { return fmt::format("{}", value); }  // 64 bits are strings in JSON

Json value_json(const AttributeValue& value) {
  struct Visitor {
    Json operator()(bool v) const { return {{"boolValue", v}}; }
    Json operator()(std::int64_t v) const { return {{"intValue", number(v)}}; }
    Json operator()(double v) const { return {{"doubleValue", v}}; }
    Json operator()(const std::string& v) const { return {{"stringValue", v}}; }
    Json operator()(const std::vector<std::string>& v) const {
      Json values = Json::array();
      for (const std::string& one : v) values.push_back({{"stringValue", one}});
      return {{"arrayValue", {{"values", std::move(values)}}}};
    }
  };
  return std::visit(Visitor{}, value);
}

Json attribute(const std::string& name, const AttributeValue& value) {
  return {{"key", name}, {"value", value_json(value)}};
}

Json attributes_json(const Attributes& attributes) {
  Json list = Json::array();
  for (const auto& [name, value] : attributes) list.push_back(attribute(name, value));
  return list;
}

Json span_json(const TraceContext& trace, const Span& span) {
  Json json{{"traceId", hex(trace.trace_id)}, {"spanId", hex(span.id)}};
  if (span.parent != std::array<std::uint8_t, 8>{}) json["parentSpanId"] = hex(span.parent);
  if (span.server && !trace.state.empty()) json["traceState"] = trace.state;
  json["name"] = span.name;
  json["kind"] = span.server ? kSpanServer : kSpanInternal;
  json["startTimeUnixNano"] = number(span.start_ns);
  json["endTimeUnixNano"] = number(span.end_ns);
  json["attributes"] = attributes_json(span.attributes);
  if (!span.events.empty()) {
    Json events = Json::array();
    for (const SpanEvent& event : span.events) {
      events.push_back({{"timeUnixNano", number(event.unix_ns)},
                        {"name", event.name},
                        {"attributes", attributes_json(event.attributes)}});
    }
    json["events"] = std::move(events);
  }
  if (!span.error.empty()) json["status"] = {{"code", kStatusError}, {"message", span.error}};
  return json;
}

std::string scope_json(std::string_view version) {
  return dump({{"name", "mlx-serving"}, {"version", version}});
}

// A data point with its labels and its time.
Json point(const ClientMetric& metric, std::int64_t start_ns, std::int64_t now_ns) {
  Json labels = Json::array();
  for (const auto& label : metric.label) labels.push_back(attribute(label.name, label.value));
  return {{"attributes", std::move(labels)},
          {"startTimeUnixNano", number(start_ns)},
          {"timeUnixNano", number(now_ns)}};
}

Json histogram_point(const ClientMetric& metric, Json json) {
  Json counts = Json::array(), bounds = Json::array();
  std::uint64_t before = 0;
  for (const auto& bucket : metric.histogram.bucket) {
    if (std::isinf(bucket.upper_bound)) continue;
    counts.push_back(number(static_cast<std::int64_t>(bucket.cumulative_count - before)));
    bounds.push_back(bucket.upper_bound);
    before = bucket.cumulative_count;
  }
  counts.push_back(number(static_cast<std::int64_t>(metric.histogram.sample_count - before)));
  json["count"] = number(static_cast<std::int64_t>(metric.histogram.sample_count));
  json["sum"] = metric.histogram.sample_sum;
  json["bucketCounts"] = std::move(counts);
  json["explicitBounds"] = std::move(bounds);
  return json;
}

std::string_view unit_of(std::string_view name) {
  if (name.ends_with("_total")) name.remove_suffix(6);
  if (name.ends_with("_seconds") || name.starts_with("gen_ai.server.")) return "s";
  if (name.ends_with("_bytes")) return "By";
  return "";
}

Json metric_json(const MetricFamily& family, std::int64_t start_ns, std::int64_t now_ns) {
  Json points = Json::array();
  for (const ClientMetric& metric : family.metric) {
    Json json = point(metric, start_ns, now_ns);
    if (family.type == MetricType::Histogram) {
      points.push_back(histogram_point(metric, std::move(json)));
      continue;
    }
    const double value = family.type == MetricType::Counter ? metric.counter.value : metric.gauge.value;
    if (!std::isfinite(value)) continue;
    json["asDouble"] = value;
    points.push_back(std::move(json));
  }
  Json json{{"name", family.name}, {"description", family.help}};
  if (const std::string_view unit = unit_of(family.name); !unit.empty()) json["unit"] = unit;
  if (family.type == MetricType::Gauge) {
    json["gauge"] = {{"dataPoints", std::move(points)}};
  } else if (family.type == MetricType::Counter) {
    json["sum"] = {
        {"dataPoints", std::move(points)}, {"aggregationTemporality", kCumulative}, {"isMonotonic", true}};
  } else {
    json["histogram"] = {{"dataPoints", std::move(points)}, {"aggregationTemporality", kCumulative}};
  }
  return json;
}

// The same numbers under the names of the semantic conventions.
struct Alias {
  const char* from;
  const char* to;
  const char* token_type;
};
constexpr Alias kAliases[] = {
    {"vllm:time_to_first_token_seconds", "gen_ai.server.time_to_first_token", nullptr},
    {"vllm:request_time_per_output_token_seconds", "gen_ai.server.time_per_output_token", nullptr},
    {"vllm:e2e_request_latency_seconds", "gen_ai.server.request.duration", nullptr},
    {"vllm:request_prompt_tokens", "gen_ai.client.token.usage", "input"},
    {"vllm:request_generation_tokens", "gen_ai.client.token.usage", "output"},
};

MetricFamily renamed(const MetricFamily& family, const Alias& alias) {
  MetricFamily copy = family;
  copy.name = alias.to;
  for (ClientMetric& metric : copy.metric) {
    const std::string model = metric.label.empty() ? std::string() : metric.label.front().value;
    metric.label = {{"gen_ai.provider.name", "mlx-serving"},
                    {"gen_ai.operation.name", "generate_content"},
                    {"gen_ai.request.model", model},
                    {"gen_ai.response.model", model}};
    if (alias.token_type != nullptr) metric.label.push_back({"gen_ai.token.type", alias.token_type});
  }
  return copy;
}

}  // namespace

std::string otlp_resource(const OtelOptions& options, std::string_view version, std::string_view instance) {
  Attributes attributes{{"service.name", options.service_name},
                        {"service.version", std::string(version)},
                        {"service.instance.id", std::string(instance)},
                        {"telemetry.sdk.name", "mlx-serving"},
                        {"telemetry.sdk.language", "cpp"},
                        {"telemetry.sdk.version", std::string(version)}};
  for (const auto& [name, value] : options.resource_attributes) attributes.emplace_back(name, value);
  return dump({{"attributes", attributes_json(attributes)}});
}

std::string otlp_spans(const TraceContext& trace, std::span<const Span> spans) {
  std::string text;
  for (const Span& span : spans) {
    if (!text.empty()) text += ',';
    text += dump(span_json(trace, span));
  }
  return text;
}

std::string otlp_traces_body(std::string_view resource, std::string_view version,
                             std::span<const std::string> spans) {
  std::string body = fmt::format(R"({{"resourceSpans":[{{"resource":{},"scopeSpans":[{{"scope":{},"spans":[)",
                                 resource, scope_json(version));
  for (std::size_t i = 0; i < spans.size(); ++i) {
    if (i > 0) body += ',';
    body += spans[i];
  }
  return body + "]}]}]}";
}

std::string otlp_metrics_body(std::string_view resource, std::string_view version,
                              const std::vector<MetricFamily>& families, std::int64_t start_ns,
                              std::int64_t now_ns) {
  Json metrics = Json::array();
  for (const MetricFamily& family : families) {
    if (!family.metric.empty()) metrics.push_back(metric_json(family, start_ns, now_ns));
  }
  MetricFamily joined;  // two of ours can be one of theirs
  const auto flush = [&] {
    if (!joined.metric.empty()) metrics.push_back(metric_json(joined, start_ns, now_ns));
    joined = {};
  };
  for (const Alias& alias : kAliases) {
    for (const MetricFamily& family : families) {
      if (family.name != alias.from) continue;
      MetricFamily copy = renamed(family, alias);
      if (copy.name != joined.name) {
        flush();
        joined = std::move(copy);
      } else {
        joined.metric.insert(joined.metric.end(), copy.metric.begin(), copy.metric.end());
      }
    }
  }
  flush();
  return fmt::format(
      R"({{"resourceMetrics":[{{"resource":{},"scopeMetrics":[{{"scope":{},"metrics":{}}}]}}]}})", resource,
      scope_json(version), dump(metrics));
}

}  // namespace mlxs
