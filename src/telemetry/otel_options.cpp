#include "telemetry/otel_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>

#include "base/log.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

using Getter = std::function<std::string(const char*)>;
using Pairs = std::vector<std::pair<std::string, std::string>>;

[[noreturn]] void refuse(std::string_view name, std::string_view value, std::string hint) {
  throw Error(ErrorCode::kInvalidArgument, fmt::format("{} = '{}'", name, value), std::move(hint),
              std::string(name));
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

std::string decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    const bool escape =
        text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16).ptr == text.data() + i + 3;
    out += escape ? static_cast<char>(value) : text[i];
    if (escape) i += 2;
  }
  return out;
}

template <class Number>
void read_number(const Getter& get, const char* name, Number& out) {
  const std::string text = get(name);
  if (text.empty()) return;
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) refuse(name, text, "give a number");
  out = value;
}

// How many requests; what the standard counts are spans, and a request has about eight.
void read_spans(const Getter& get, const char* name, std::size_t& out) {
  constexpr std::size_t kSpansARequest = 8;
  std::size_t spans = 0;
  read_number(get, name, spans);
  if (spans > 0) out = std::max<std::size_t>(1, spans / kSpansARequest);
}

void read_sampler(const Getter& get, OtelOptions& options) {
  std::string sampler = get("OTEL_TRACES_SAMPLER");
  constexpr std::string_view kParent = "parentbased_";
  if (!sampler.empty()) options.follow_parent = sampler.starts_with(kParent);
  if (options.follow_parent && !sampler.empty()) sampler.erase(0, kParent.size());
  if (sampler.empty() || sampler == "traceidratio") {
    read_number(get, "OTEL_TRACES_SAMPLER_ARG", options.sample_share);
  } else if (sampler == "always_on") {
    options.sample_share = 1;
  } else if (sampler == "always_off") {
    options.sample_share = 0;
    options.keep_failures = false;
  } else {
    refuse("OTEL_TRACES_SAMPLER", get("OTEL_TRACES_SAMPLER"),
           "always_on, always_off, traceidratio, or one of them after parentbased_");
  }
}

// A signal's own endpoint is used as it is; "none" turns the signal off.
void read_signal(const Getter& get, const char* exporter, const char* endpoint, const char* headers,
                 std::string& url, Pairs& pairs) {
  if (const std::string own = get(endpoint); !own.empty()) url = own;
  if (const std::string own = get(headers); !own.empty()) pairs = parse_pairs(own, headers);
  const std::string kind = get(exporter);
  if (kind == "none") {
    url.clear();
  } else if (!kind.empty() && kind != "otlp") {
    refuse(exporter, kind, "otlp or none");
  }
}

void check_protocol(const Getter& get, const char* name, const OtelOptions& options) {
  const std::string protocol = get(name);
  if (protocol.empty() || protocol == "http/json" || !options.any()) return;
  if (protocol == "http/protobuf") {
    log::info("{}=http/protobuf: OTLP goes out as http/json, which the same receivers take", name);
    return;
  }
  refuse(name, protocol, "http/json is spoken here: give the collector's HTTP port, usually 4318");
}

// Of one signal; what is common holds where it has none of its own.
bool wants_gzip(const Getter& get, const char* own) {
  constexpr const char* kCommon = "OTEL_EXPORTER_OTLP_COMPRESSION";
  const char* name = get(own).empty() ? kCommon : own;
  const std::string how = get(name);
  if (!how.empty() && how != "none" && how != "gzip") refuse(name, how, "gzip or none");
  return how == "gzip";
}

void check_url(std::string_view name, std::string_view url) {
  if (url.empty() || url.starts_with("http://") || url.starts_with("https://")) return;
  refuse(name, url, "give a URL such as http://127.0.0.1:4318");
}

}  // namespace

void set_endpoint(OtelOptions& options, std::string_view endpoint) {
  while (endpoint.ends_with('/')) endpoint.remove_suffix(1);
  options.traces_url = endpoint.empty() ? "" : fmt::format("{}/v1/traces", endpoint);
  options.metrics_url = endpoint.empty() ? "" : fmt::format("{}/v1/metrics", endpoint);
}

Pairs parse_pairs(std::string_view text, std::string_view source) {
  Pairs pairs;
  while (!text.empty()) {
    const std::string_view item = trim(text.substr(0, text.find(',')));
    text.remove_prefix(
        std::min(text.size(), text.find(',') == std::string_view::npos ? text.size() : text.find(',') + 1));
    if (item.empty()) continue;
    const std::size_t equals = item.find('=');
    if (equals == 0 || equals == std::string_view::npos) {
      refuse(source, "…", "give NAME=VALUE pairs, separated by commas");  // values may be secret
    }
    pairs.emplace_back(decode(trim(item.substr(0, equals))), decode(trim(item.substr(equals + 1))));
  }
  return pairs;
}

OtelOptions otel_from_environment(const Getter& get) {
  OtelOptions options;
  set_endpoint(options, get("OTEL_EXPORTER_OTLP_ENDPOINT"));
  options.traces_headers = parse_pairs(get("OTEL_EXPORTER_OTLP_HEADERS"), "OTEL_EXPORTER_OTLP_HEADERS");
  options.metrics_headers = options.traces_headers;
  read_signal(get, "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
              "OTEL_EXPORTER_OTLP_TRACES_HEADERS", options.traces_url, options.traces_headers);
  read_signal(get, "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
              "OTEL_EXPORTER_OTLP_METRICS_HEADERS", options.metrics_url, options.metrics_headers);
  options.certificate_file = get("OTEL_EXPORTER_OTLP_CERTIFICATE");
  read_number(get, "OTEL_EXPORTER_OTLP_TIMEOUT", options.timeout_ms);
  read_number(get, "OTEL_METRIC_EXPORT_INTERVAL", options.metrics_interval_ms);
  read_number(get, "OTEL_BSP_SCHEDULE_DELAY", options.batch_delay_ms);
  read_spans(get, "OTEL_BSP_MAX_QUEUE_SIZE", options.max_queue);
  read_spans(get, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", options.max_batch);
  read_sampler(get, options);
  for (auto& [name, value] : parse_pairs(get("OTEL_RESOURCE_ATTRIBUTES"), "OTEL_RESOURCE_ATTRIBUTES")) {
    if (name == "service.name") {
      options.service_name = value;
    } else {
      options.resource_attributes.emplace_back(name, value);
    }
  }
  if (const std::string name = get("OTEL_SERVICE_NAME"); !name.empty()) options.service_name = name;
  std::string disabled = get("OTEL_SDK_DISABLED");
  std::ranges::transform(disabled, disabled.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (disabled == "true") set_endpoint(options, "");
  check_protocols(options, get);
  options.traces_gzip = wants_gzip(get, "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION");
  options.metrics_gzip = wants_gzip(get, "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION");
  return options;
}

std::string otel_variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(trim(value));
}

void check_protocols(const OtelOptions& options, const Getter& get) {
  for (const char* name : {"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
                           "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"}) {
    check_protocol(get, name, options);
  }
}

void validate(const OtelOptions& options) {
  const auto within = [](const char* name, double value, double low, double high) {
    if (value >= low && value <= high) return;
    refuse(name, fmt::format("{:g}", value), fmt::format("{:g} … {:g}", low, high));
  };
  check_url("OTLP traces endpoint", options.traces_url);
  check_url("OTLP metrics endpoint", options.metrics_url);
  within("trace sample share", options.sample_share, 0, 1);
  within("OTLP timeout in ms", options.timeout_ms, 1, 600'000);
  within("metrics export interval in ms", options.metrics_interval_ms, 100, 3'600'000);
  within("trace batch delay in ms", options.batch_delay_ms, 1, 600'000);
  within("trace batch", static_cast<double>(options.max_batch), 1, 65'536);
  within("trace queue", static_cast<double>(options.max_queue), 1, 1'048'576);
  if (options.service_name.empty()) refuse("service name", "", "give a name");
}

}  // namespace mlxs
