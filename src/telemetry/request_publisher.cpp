#include "telemetry/request_publisher.h"

#include <chrono>
#include <utility>

#include "base/log.h"
#include "telemetry/access_log.h"
#include "telemetry/otlp_json.h"

namespace mlxs {
namespace {

constexpr std::size_t kQueue = 8192;
constexpr std::size_t kAtOnce = 256;

// What a stranger can send without end is no failure of ours that anybody must see.
bool is_noise(int status) { return status == 401 || status == 403 || status == 404 || status == 405; }

}  // namespace

bool is_sampled(const OtelOptions& options, const RequestReport& report) {
  const TraceContext& trace = report.start.context;
  if (!trace.valid()) return false;
  const bool failed = report.failed() && !is_noise(report.end ? report.end->status : 0);
  if (options.keep_failures && (failed || report.missed_target())) return true;
  if (report.start.facts.operation.empty()) return false;  // no request to a model
  if (options.follow_parent && trace.has_parent()) return trace.sampled;
  return in_share(trace, options.sample_share);
}

RequestPublisher::RequestPublisher(bool access_log, std::shared_ptr<OtelExporter> exporter)
    : access_log_(access_log), exporter_(std::move(exporter)), queue_(kQueue), thread_([this] { run(); }) {}

void RequestPublisher::stop() {
  if (!thread_.joinable()) return;
  queue_.close();
  thread_.join();
}

void RequestPublisher::on_request_done(std::shared_ptr<const RequestTrace> trace) {
  queue_.push(std::move(trace));
}

void RequestPublisher::run() {
  for (;;) {
    const bool closed = queue_.closed();
    const auto done = queue_.take(kAtOnce, 1, std::chrono::steady_clock::now() + std::chrono::hours(1));
    for (const auto& trace : done) {
      try {
        publish(*trace);
      } catch (const std::exception& error) {
        log::error("the record of request {} could not be written: {}", trace->id(), error.what());
      }
    }
    if (closed && done.empty()) return;
  }
}

void RequestPublisher::publish(const RequestTrace& trace) const {
  const RequestReport report = trace.report();
  if (access_log_) write_access_line(report);
  if (exporter_ && is_sampled(exporter_->options(), report)) {
    exporter_->add_trace(otlp_spans(report.start.context, request_spans(report)));
  }
}

}  // namespace mlxs
