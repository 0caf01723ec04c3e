#include "telemetry/server_families.h"

#include <fmt/format.h>

#include "telemetry/process_stats.h"
#include "telemetry/series.h"

namespace mlxs {
namespace {

double number(auto value) { return static_cast<double>(value); }

}  // namespace

void add_server_families(FamilyBuilder& out, const ServerCounters& s) {
  out.counter("mlxs_http_responses_total", "Answers by HTTP status; WebSocket messages count, too.");
  for (int i = 0; i < ServerCounters::kStatuses; ++i) {
    const double count = value(s.responses[static_cast<std::size_t>(i)]);
    const int status = i + ServerCounters::kFirstStatus;
    if (count > 0 || status == 200) out.add({{"code", fmt::format("{}", status)}}, count);
  }
  out.counter("mlxs_clients_gone_total", "Clients that left before they had an answer.")
      .add({}, value(s.clients_gone));
  out.counter("mlxs_http_sent_bytes_total", "Bytes of answers.").add({}, value(s.bytes_sent));
  out.counter("mlxs_socket_wait_seconds_total", "For how long full sockets made answers wait.")
      .add({}, value(s.socket_wait_seconds));
  out.counter("mlxs_http_rate_limited_total", "Requests beyond the rate of their key or address.")
      .add({}, value(s.rate_limited));
  out.counter("mlxs_http_slow_readers_total", "Streams given up because their clients took nothing.")
      .add({}, value(s.slow_readers));
  out.gauge("mlxs_http_connections", "Open connections.").add({}, number(s.connections.load()));
  out.gauge("mlxs_websockets", "Of them, WebSockets.").add({}, number(s.websockets.load()));
  out.gauge("mlxs_streams", "Answers that are on their way as streams.").add({}, number(s.streams.load()));
}

void add_export_families(FamilyBuilder& out, const ExportCounts& e) {
  out.counter("mlxs_requests_unreported_total",
              "Requests that the access log and the traces had no room for.")
      .add({}, number(e.requests_unreported));
  out.counter("mlxs_otlp_traces_total", "Traces, by what became of them.");
  out.add({{"outcome", "sent"}}, number(e.traces_sent));
  out.add({{"outcome", "dropped"}}, number(e.traces_dropped));
  out.counter("mlxs_otlp_metric_exports_total", "Exports of metrics over OTLP.")
      .add({}, number(e.metrics_sent));
  out.counter("mlxs_otlp_failures_total", "Attempts that the receiver did not take.")
      .add({}, number(e.failures));
  out.counter("mlxs_flight_dumps_total", "Files that the flight recorder wrote.")
      .add({}, number(e.flight_dumps));
  out.counter("mlxs_stalls_total", "Times that no step ended for too long while there was work.")
      .add({}, number(e.stalls));
}

void add_process_families(FamilyBuilder& out) {
  const ProcessStats p = process_stats();
  out.gauge("process_start_time_seconds", "When the process began, in unix time.").add({}, p.start_unix_s);
  out.counter("process_cpu_seconds_total", "Processor time, user and system.").add({}, p.cpu_s);
  out.gauge("process_resident_memory_bytes", "Memory that is resident.").add({}, number(p.resident_bytes));
  out.gauge("process_virtual_memory_bytes", "Memory that is addressed.").add({}, number(p.virtual_bytes));
  out.gauge("process_open_fds", "Open file descriptors.").add({}, number(p.open_fds));
  out.gauge("process_max_fds", "That may be open.").add({}, number(p.max_fds));
}

}  // namespace mlxs
