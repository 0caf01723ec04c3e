#include "telemetry/otel_exporter.h"

#include <algorithm>
#include <random>
#include <utility>

#include "base/log.h"
#include "telemetry/gzip.h"
#include "telemetry/otlp_json.h"
#include "telemetry/otlp_post.h"

namespace mlxs {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kTryFor = seconds(300);
constexpr Duration kFirstPause = milliseconds(1000), kLongestPause = seconds(30);
constexpr int kGoodbyeMs = 2000;  // for an export while the server ends

std::int64_t unix_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// 1 s, 1.5 s, 2.25 s … 30 s, each shortened by up to a half at random, so that many servers do not return at
// once.
Duration pause_after(int attempts) {
  thread_local std::minstd_rand random{std::random_device{}()};
  double pause = to_seconds(kFirstPause);
  for (int i = 1; i < attempts && pause < to_seconds(kLongestPause); ++i) pause *= 1.5;
  pause = std::min(pause, to_seconds(kLongestPause));
  return from_seconds(pause * std::uniform_real_distribution<double>(0.5, 1)(random));
}

OtelOptions checked(OtelOptions options) {
  validate(options);
  return options;
}

}  // namespace

OtelExporter::OtelExporter(OtelOptions options, std::string version, std::string instance,
                           MetricsSource metrics)
    : options_(checked(std::move(options))),
      version_(std::move(version)),
      resource_(otlp_resource(options_, version_, instance)),
      metrics_source_(std::move(metrics)),
      start_ns_(unix_ns()),
      queue_(options_.max_queue),
      traces_{.name = "traces",
              .url = options_.traces_url,
              .headers = options_.traces_headers,
              .gzip = options_.traces_gzip,
              .body = {}},
      metrics_{.name = "metrics",
               .url = options_.metrics_url,
               .headers = options_.metrics_headers,
               .gzip = options_.metrics_gzip,
               .body = {}} {}

void OtelExporter::Signal::take(std::string plain) { body = gzip ? mlxs::gzip(plain) : std::move(plain); }

void OtelExporter::start() {
  thread_ = std::thread([this] { run(); });
}

void OtelExporter::stop() {
  if (!thread_.joinable()) return;
  closing_ = true;
  queue_.close();
  if (!ended_.try_acquire_for(milliseconds(kGoodbyeMs))) give_up_ = true;
  thread_.join();
}

void OtelExporter::add_trace(std::string spans) {
  if (!options_.traces_url.empty()) queue_.push(std::move(spans), options_.max_batch);
}

OtelStats OtelExporter::stats() const {
  return {.traces_sent = traces_sent_,
          .traces_dropped = traces_lost_ + queue_.dropped(),
          .metrics_sent = metrics_sent_,
          .failures = failures_};
}

void OtelExporter::run() {
  metrics_due_ = std::chrono::steady_clock::now() + milliseconds(options_.metrics_interval_ms);
  while (!closing_) {
    const TimePoint now = std::chrono::steady_clock::now();
    if (now >= metrics_due_) take_metrics(now);
    for (Signal* signal : {&traces_, &metrics_}) {
      if (!signal->body.empty() && now >= signal->next) attempt(*signal, options_.timeout_ms);
    }
    // Until a batch is full or something is due. While one is being tried again, the next one gathers.
    const TimePoint until = wake_at(std::chrono::steady_clock::now());
    if (traces_.body.empty()) {
      take_traces(options_.max_batch, until);
    } else {
      queue_.take(0, SIZE_MAX, until);
    }
  }
  say_goodbye();
  ended_.release();
}

// One attempt for everything that is left.
void OtelExporter::say_goodbye() {
  const TimePoint deadline = std::chrono::steady_clock::now() + milliseconds(2 * kGoodbyeMs);
  for (;;) {
    if (traces_.body.empty()) take_traces(1, {});
    if (traces_.body.empty() || std::chrono::steady_clock::now() > deadline) break;
    attempt(traces_, kGoodbyeMs);
    if (!traces_.body.empty()) done_with(traces_, false);
  }
  take_metrics(std::chrono::steady_clock::now());
  if (!metrics_.body.empty()) attempt(metrics_, kGoodbyeMs);
}

void OtelExporter::take_traces(std::size_t enough, TimePoint until) {
  const std::vector<std::string> batch = queue_.take(options_.max_batch, enough, until);
  if (batch.empty()) return;
  traces_.traces = batch.size();
  traces_.take(otlp_traces_body(resource_, version_, batch));
  traces_.begun = traces_.next = std::chrono::steady_clock::now();
}

// What could not be sent before is out of date now.
void OtelExporter::take_metrics(TimePoint now) {
  metrics_due_ = now + milliseconds(options_.metrics_interval_ms);
  if (options_.metrics_url.empty()) return;
  const bool again = !metrics_.body.empty();
  metrics_.take(otlp_metrics_body(resource_, version_, metrics_source_(), start_ns_, unix_ns()));
  if (!again) metrics_.begun = metrics_.next = now;
}

void OtelExporter::attempt(Signal& signal, int timeout_ms) {
  const OtlpAnswer answer = post_otlp({.url = signal.url,
                                       .headers = signal.headers,
                                       .certificate_file = options_.certificate_file,
                                       .body = signal.body,
                                       .gzip = signal.gzip,
                                       .timeout_ms = timeout_ms,
                                       .give_up = &give_up_});
  const TimePoint now = std::chrono::steady_clock::now();
  if (answer.kind == OtlpAnswer::Kind::kDone) {
    if (std::exchange(signal.complained, false))
      log::info("OTLP: {} takes {} again", signal.url, signal.name);
    if (!answer.warning.empty()) log::warn("OTLP: {} left out {}", signal.url, answer.warning);
    done_with(signal, true);
    return;
  }
  ++failures_;
  if (!std::exchange(signal.complained, true)) {
    log::warn("OTLP: {} takes no {}: {}", signal.url, signal.name, answer.failure);
  }
  if (answer.kind == OtlpAnswer::Kind::kRefused || now - signal.begun > kTryFor) {
    done_with(signal, false);
    return;
  }
  ++signal.attempts;
  signal.next = now + std::max<Duration>(pause_after(signal.attempts), seconds(answer.retry_after_s));
}

void OtelExporter::done_with(Signal& signal, bool sent) {
  if (&signal == &traces_) (sent ? traces_sent_ : traces_lost_) += signal.traces;
  if (&signal == &metrics_ && sent) ++metrics_sent_;
  signal.body.clear();
  signal.attempts = 0;
}

TimePoint OtelExporter::wake_at(TimePoint now) const {
  TimePoint until = std::min(metrics_due_, now + milliseconds(options_.batch_delay_ms));
  for (const Signal* signal : {&traces_, &metrics_}) {
    if (!signal->body.empty()) until = std::min(until, signal->next);
  }
  return until;
}

}  // namespace mlxs
