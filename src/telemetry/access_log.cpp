#include "telemetry/access_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/log_control.h"
#include "base/log_text.h"

namespace mlxs {
namespace {

struct Totals {
  int prompt = 0, cached = 0, generated = 0;
  double ttft = 0, queue = 0;
  std::string finish, error;
};

// Over all choices; the finish and the error of the last one that has any.
Totals totals(const RequestReport& report) {
  Totals t;
  for (const RequestTimeline& c : report.choices) {
    t.prompt += c.prompt_tokens;
    t.cached += c.cached_prompt_tokens;
    t.generated += c.generated_tokens;
    if (c.ttft_seconds > 0) t.ttft = t.ttft > 0 ? std::min(t.ttft, c.ttft_seconds) : c.ttft_seconds;
    t.queue = std::max(t.queue, c.parts[static_cast<std::size_t>(RequestPart::kQueue)]);
    t.finish = c.finish;
    if (!c.error.empty()) t.error = c.error;
  }
  return t;
}

double rounded_ms(double seconds) { return std::round(seconds * 1e6) / 1e3; }

// A name that clients choose cannot pass for another field, nor begin a line of its own.
std::string field(std::string_view text) {
  const bool plain = !text.empty() && text.find_first_of(" =\"\\") == std::string_view::npos;
  return plain ? visible(text) : '"' + json_text(text) + '"';
}

// What orchestrators ask all the time.
bool is_probe(const TraceStart& start) {
  return start.method != "POST" && (start.path.starts_with("/health") || start.path == "/metrics");
}

}  // namespace

std::string access_text(const RequestReport& report) {
  const TraceStart& s = report.start;
  const int status = report.end ? report.end->status : 0;
  const std::string path = s.path.find(' ') == std::string::npos ? visible(s.path) : field(s.path);
  std::string text =
      fmt::format("{} {} {} {:.1f} ms id={}", visible(s.method), path,
                  status == 0 ? "gone" : fmt::format("{}", status), report.e2e_seconds() * 1e3, field(s.id));
  if (s.context.valid()) text += fmt::format(" trace={}", hex(s.context.trace_id));
  if (!s.tenant.empty()) text += fmt::format(" tenant={}", field(s.tenant));
  if (!s.model.empty()) text += fmt::format(" model={}", field(s.model));
  if (!report.choices.empty()) {
    const Totals t = totals(report);
    text += fmt::format(" prompt={} cached={} generated={} finish={} queue={:.1f} ms ttft={:.1f} ms",
                        t.prompt, t.cached, t.generated, t.finish, t.queue * 1e3, t.ttft * 1e3);
    if (!t.error.empty()) text += fmt::format(" error={}", field(t.error));
  }
  if (report.end && report.end->client_gone && status != 0) text += " client_gone";
  if (!s.facts.prompt.empty()) text += " prompt_text=" + visible(s.facts.prompt);
  return text;
}

std::string access_fields(const RequestReport& report) {
  using Json = nlohmann::ordered_json;
  const TraceStart& s = report.start;
  Json json{{"request_id", s.id}};
  if (s.context.valid()) {
    json["trace_id"] = hex(s.context.trace_id);
    json["span_id"] = hex(s.context.span_id);
  }
  json["method"] = s.method;
  json["path"] = s.path;
  json["status"] = report.end && report.end->status != 0 ? Json(report.end->status) : Json();
  json["peer"] = s.peer;
  json["tenant"] = s.tenant.empty() ? Json() : Json(s.tenant);
  if (!s.model.empty()) json["model"] = s.model;
  if (!s.facts.operation.empty()) json["stream"] = s.facts.stream;
  if (!report.choices.empty()) {
    const Totals t = totals(report);
    json["prompt_tokens"] = t.prompt;
    json["cached_tokens"] = t.cached;
    json["generated_tokens"] = t.generated;
    json["finish"] = t.finish;
    json["queue_ms"] = rounded_ms(t.queue);
    json["ttft_ms"] = t.ttft > 0 ? Json(rounded_ms(t.ttft)) : Json();
    if (!t.error.empty()) json["error"] = t.error;
  }
  json["e2e_ms"] = rounded_ms(report.e2e_seconds());
  if (report.end) {
    json["bytes"] = report.end->bytes;
    json["client_gone"] = report.end->client_gone;
  }
  if (!s.facts.prompt.empty()) {
    const Json parsed = Json::parse(s.facts.prompt, nullptr, false);
    json["prompt"] = parsed.is_discarded() ? Json(s.facts.prompt) : parsed;
  }
  const std::string object = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  return object.substr(1, object.size() - 2);
}

void write_access_line(const RequestReport& report) {
  const bool probe = is_probe(report.start);
  if (!log::access_wanted(probe)) return;
  log::access(log::format() == LogFormat::kJson ? access_fields(report) : access_text(report), probe);
}

}  // namespace mlxs
