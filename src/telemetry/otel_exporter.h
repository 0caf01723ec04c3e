// Sends spans and metrics to an OTLP/HTTP receiver from a thread of its own. Whoever gives it something never
// waits: the queue is bounded and the oldest goes. What a receiver cannot take now is tried again with
// growing pauses, for five minutes at most; one line of the log says when that begins and when it is over.
#pragma once

#include <prometheus/metric_family.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "telemetry/bounded_queue.h"
#include "telemetry/otel_options.h"

namespace mlxs {

struct OtelStats {
  std::uint64_t traces_sent = 0, traces_dropped = 0;  // dropped: no room, refused, or tried for too long
  std::uint64_t metrics_sent = 0, failures = 0;       // exports; attempts
};

class OtelExporter {
 public:
  using MetricsSource = std::function<std::vector<prometheus::MetricFamily>()>;

  // metrics: called on the exporter's thread. Throws kInvalidArgument for options out of range.
  OtelExporter(OtelOptions options, std::string version, std::string instance, MetricsSource metrics);
  ~OtelExporter() { stop(); }
  OtelExporter(const OtelExporter&) = delete;
  OtelExporter& operator=(const OtelExporter&) = delete;

  void start();  // once
  const OtelOptions& options() const { return options_; }
  void add_trace(std::string spans);  // as otlp_spans() has them; any thread
  OtelStats stats() const;
  // Sends what is there, within a few seconds, and ends the thread: the source of metrics is asked no more.
  // Idempotent; what is added later is dropped.
  void stop();

 private:
  // What is being sent of one signal.
  struct Signal {
    const char* name;
    const std::string& url;
    const std::vector<std::pair<std::string, std::string>>& headers;
    bool gzip;
    std::string body;           // empty: nothing; as it is sent
    std::uint64_t traces = 0;   // in it
    TimePoint begun{}, next{};  // of trying; the next attempt
    int attempts = 0;
    bool complained = false;

    void take(std::string plain);
  };

  void run();
  void say_goodbye();
  void take_traces(std::size_t enough, TimePoint until);
  void take_metrics(TimePoint now);
  void attempt(Signal& signal, int timeout_ms);
  void done_with(Signal& signal, bool sent);
  TimePoint wake_at(TimePoint now) const;

  const OtelOptions options_;
  const std::string version_, resource_;
  const MetricsSource metrics_source_;
  const std::int64_t start_ns_;
  BoundedQueue<std::string> queue_;
  Signal traces_, metrics_;
  TimePoint metrics_due_{};
  std::atomic<bool> closing_{false}, give_up_{false};
  std::atomic<std::uint64_t> traces_sent_{0}, traces_lost_{0}, metrics_sent_{0}, failures_{0};
  std::binary_semaphore ended_{0};
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace mlxs
