// What becomes of requests that are over: a line of the access log each, and spans of those that are sampled,
// which is decided here, when the end is known. Works on a thread of its own; whoever reports a request never
// waits. When it falls behind, the oldest requests go unreported and are counted.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "telemetry/bounded_queue.h"
#include "telemetry/otel_exporter.h"
#include "telemetry/request_log.h"

namespace mlxs {

// Whether a request's trace is exported: a caller's decision if the options say so, else its share; failures
// and missed targets always, if the options say so.
bool is_sampled(const OtelOptions& options, const RequestReport& report);

class RequestPublisher final : public RequestListener {
 public:
  // exporter: null: no spans.
  RequestPublisher(bool access_log, std::shared_ptr<OtelExporter> exporter);
  ~RequestPublisher() override { stop(); }
  RequestPublisher(const RequestPublisher&) = delete;
  RequestPublisher& operator=(const RequestPublisher&) = delete;

  void on_request_done(std::shared_ptr<const RequestTrace> trace) override;
  std::uint64_t dropped() const { return queue_.dropped(); }
  void stop();  // after what is there; idempotent

 private:
  void run();
  void publish(const RequestTrace& trace) const;

  const bool access_log_;
  const std::shared_ptr<OtelExporter> exporter_;
  BoundedQueue<std::shared_ptr<const RequestTrace>> queue_;
  std::thread thread_;
};

}  // namespace mlxs
