#include "telemetry/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <atomic>
#include <functional>
#include <mutex>
#include <sstream>
#include <utility>
#include <vector>

#include "telemetry/histogram.h"

namespace mlxs {
namespace {

using Stats = EngineSchedulerStats;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// vLLM's buckets, so that its dashboards and alerts work here. Seconds, but for the token counts.
constexpr double kFirstToken[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                  1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
constexpr double kInterToken[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5,
                                  0.75, 1,     2.5,  5,     7.5, 10,   20,  40,  80};
constexpr double kRequest[] = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                               30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
constexpr double kRequestTokens[] = {1,    2,    5,     10,    20,    50,     100,    200,    500,    1000,
                                     2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000};
constexpr double kStepTokens[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

// How a request can end, in vLLM's words.
constexpr std::array<std::pair<std::string_view, const char*>, 4> kFinishReasons{
    {{"stop", "stop"}, {"length", "length"}, {"cancelled", "abort"}, {"error", "error"}}};

constexpr std::array<const char*, 3> kStepParts{"plan", "run", "publish"};

// Everything observed of one model.
struct Series {
  explicit Series(std::string_view name) : model(name) {}

  const std::string model;
  Series* next = nullptr;  // written before the series is published, never after

  AtomicHistogram first_token{kFirstToken};
  AtomicHistogram inter_token{kInterToken};
  AtomicHistogram request{kRequest};
  AtomicHistogram queue{kRequest};
  AtomicHistogram prompt_tokens{kRequestTokens};
  AtomicHistogram generation_tokens{kRequestTokens};
  AtomicHistogram step_tokens{kStepTokens};
  AtomicHistogram mean_inter_token{kInterToken};
  std::array<std::atomic<double>, kStepParts.size()> step_seconds{};
  std::array<std::atomic<std::uint64_t>, kFinishReasons.size()> finished{};
  std::atomic<std::uint64_t> prompt_total{0};
  std::atomic<std::uint64_t> generation_total{0};
};

void add(std::atomic<std::uint64_t>& counter, std::uint64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}

double value(const std::atomic<std::uint64_t>& counter) {
  return static_cast<double>(counter.load(std::memory_order_relaxed));
}

void add_seconds(std::atomic<double>& total, double by) { total.fetch_add(by, std::memory_order_relaxed); }

ClientMetric labelled(const std::string& model) {
  ClientMetric metric;
  metric.label = {{"model_name", model}};
  return metric;
}

ClientMetric histogram(const std::string& model, const AtomicHistogram& source) {
  ClientMetric metric = labelled(model);
  std::uint64_t cumulative = 0;
  const auto bounds = source.bounds();
  for (std::size_t i = 0; i < bounds.size(); ++i) {
    cumulative += source.count(i);
    metric.histogram.bucket.push_back({cumulative, bounds[i]});
  }
  metric.histogram.sample_count = cumulative + source.count(bounds.size());
  metric.histogram.sample_sum = source.sum();
  return metric;
}

ClientMetric counter(const std::string& model, double count) {
  ClientMetric metric = labelled(model);
  metric.counter.value = count;
  return metric;
}

ClientMetric gauge(const std::string& model, double level) {
  ClientMetric metric = labelled(model);
  metric.gauge.value = level;
  return metric;
}

}  // namespace

// Series in a list that only grows: found without a lock, added under one.
struct MetricsObserver::Impl {
  ~Impl() {
    for (Series* series = head.load(); series != nullptr;) delete std::exchange(series, series->next);
  }

  Series* find(std::string_view model) const {
    Series* series = head.load(std::memory_order_acquire);
    while (series != nullptr && series->model != model) series = series->next;
    return series;
  }

  Series& of(std::string_view model) {
    if (Series* series = find(model)) return *series;
    const std::lock_guard lock(adding);
    if (Series* series = find(model)) return *series;
    auto* series = new Series(model);
    series->next = head.load(std::memory_order_relaxed);
    head.store(series, std::memory_order_release);
    return *series;
  }

  // One family with a metric of every model.
  MetricFamily family(const char* name, const char* help, MetricType type,
                      const std::function<void(const Series&, std::vector<ClientMetric>&)>& fill) const {
    MetricFamily result{name, help, type, {}};
    for (const Series* series = head.load(std::memory_order_acquire); series != nullptr;
         series = series->next) {
      fill(*series, result.metric);
    }
    return result;
  }

  MetricFamily counters(const char* name, const char* help,
                        std::atomic<std::uint64_t> Series::*member) const {
    return family(name, help, MetricType::Counter, [member](const Series& series, auto& out) {
      out.push_back(counter(series.model, value(series.*member)));
    });
  }

  MetricFamily histograms(const char* name, const char* help, AtomicHistogram Series::*member) const {
    return family(name, help, MetricType::Histogram, [member](const Series& series, auto& out) {
      out.push_back(histogram(series.model, series.*member));
    });
  }

  // Everything there is to scrape; `now`: the levels of this moment.
  std::vector<MetricFamily> families(std::span<const EngineSchedulerStats> now);

  std::atomic<Series*> head{nullptr};
  std::mutex adding;
};

MetricsObserver::MetricsObserver() : impl_(std::make_unique<Impl>()) {}
MetricsObserver::~MetricsObserver() = default;

void MetricsObserver::on_first_token(std::string_view model, double ttft_seconds) {
  Series& series = impl_->of(model);
  series.first_token.observe(ttft_seconds);
  add(series.generation_total);
}

void MetricsObserver::on_inter_token(std::string_view model, double seconds) {
  Series& series = impl_->of(model);
  series.inter_token.observe(seconds);
  add(series.generation_total);
}

void MetricsObserver::on_finished(const RequestRecord& record) {
  Series& series = impl_->of(record.model);
  for (std::size_t i = 0; i < kFinishReasons.size(); ++i) {
    if (record.finish == kFinishReasons[i].first) add(series.finished[i]);
  }
  series.request.observe(record.e2e_seconds);
  series.queue.observe(record.queue_seconds);
  series.prompt_tokens.observe(record.prompt_tokens);
  series.generation_tokens.observe(record.generated_tokens);
  const bool whole = record.finish == "stop" || record.finish == "length";
  if (whole && record.generated_tokens > 1) {  // ends with its last token
    const double decoding = record.e2e_seconds - record.ttft_seconds;
    series.mean_inter_token.observe(decoding / (record.generated_tokens - 1));
  }
  // A prompt counts once it was processed: the first token proves it.
  if (record.ttft_seconds > 0) add(series.prompt_total, static_cast<std::uint64_t>(record.prompt_tokens));
}

void MetricsObserver::on_step(const StepRecord& record) {
  Series& series = impl_->of(record.model);
  series.step_tokens.observe(record.prefill_tokens + record.decode_rows);
  add_seconds(series.step_seconds[0], record.plan_seconds);
  add_seconds(series.step_seconds[1], record.run_seconds);
  add_seconds(series.step_seconds[2], record.commit_seconds);
}

std::vector<MetricFamily> MetricsObserver::Impl::families(std::span<const EngineSchedulerStats> now) {
  for (const EngineSchedulerStats& model : now) of(model.model);  // zeros from the first scrape on

  const auto levels = [now](const char* name, const char* help, MetricType type, auto level) {
    MetricFamily family{name, help, type, {}};
    for (const EngineSchedulerStats& model : now) {
      const auto number = static_cast<double>(level(model));
      family.metric.push_back(type == MetricType::Gauge ? gauge(model.model, number)
                                                        : counter(model.model, number));
    }
    return family;
  };
  MetricFamily misses{"mlxs_prefix_cache_misses_total",
                      "Requests that did not find their whole prompt in the prefix cache, by reason.",
                      MetricType::Counter,
                      {}};
  for (const Stats& model : now) {
    for (const auto& [reason, count] : model.prefix_misses) {
      misses.metric.push_back(counter(model.model, static_cast<double>(count)));
      misses.metric.back().label.push_back({"reason", std::string(reason)});
    }
  }
  // One metric a value of `label`.
  const auto split = [now](const char* name, const char* help, MetricType type, const char* label,
                           std::initializer_list<std::pair<const char*, double (*)(const Stats&)>> values) {
    MetricFamily family{name, help, type, {}};
    for (const Stats& model : now) {
      for (const auto& [value_name, read] : values) {
        const double number = read(model);
        family.metric.push_back(type == MetricType::Gauge ? gauge(model.model, number)
                                                          : counter(model.model, number));
        family.metric.back().label.push_back({label, value_name});
      }
    }
    return family;
  };
  const auto kv_usage = [](const Stats& s) {
    return s.kv_pages_total > 0 ? static_cast<double>(s.kv_pages_held) / s.kv_pages_total : 0.0;
  };
  return {
      levels("vllm:num_requests_running", "Requests that hold a place, paused ones included.",
             MetricType::Gauge, [](const Stats& s) { return s.running + s.paused; }),
      levels("vllm:num_requests_waiting", "Requests waiting for a place.", MetricType::Gauge,
             [](const Stats& s) { return s.waiting; }),
      levels("vllm:kv_cache_usage_perc", "KV pages in use; 1 is all of them.", MetricType::Gauge, kv_usage),
      levels("vllm:gpu_cache_usage_perc", "The older name of vllm:kv_cache_usage_perc.", MetricType::Gauge,
             kv_usage),
      levels("vllm:num_preemptions_total", "Requests that lost their pages and were recomputed.",
             MetricType::Counter, [](const Stats& s) { return s.preemptions; }),
      levels("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
             MetricType::Counter, [](const Stats& s) { return s.prefix_query_tokens; }),
      levels("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", MetricType::Counter,
             [](const Stats& s) { return s.prefix_hit_tokens; }),
      std::move(misses),
      levels("mlxs_prefix_cache_evicted_pages_total", "Cached KV pages that made room for others.",
             MetricType::Counter, [](const Stats& s) { return s.prefix_evicted_pages; }),
      levels("mlxs_prefix_cache_expired_pages_total", "Cached KV pages that were unused for too long.",
             MetricType::Counter, [](const Stats& s) { return s.prefix_expired_pages; }),
      levels("mlxs_prefix_cache_disk_saved_pages_total", "KV pages written to the disk tier.",
             MetricType::Counter, [](const Stats& s) { return s.disk_saved_pages; }),
      levels("mlxs_prefix_cache_disk_restored_pages_total", "KV pages brought back from the disk tier.",
             MetricType::Counter, [](const Stats& s) { return s.disk_restored_pages; }),
      levels("mlxs_prefix_cache_disk_bytes", "Bytes in the disk tier's folder, of all models.",
             MetricType::Gauge, [](const Stats& s) { return s.disk_bytes; }),
      counters("vllm:prompt_tokens_total", "Prompt tokens of requests that were prefilled.",
               &Series::prompt_total),
      counters("vllm:generation_tokens_total", "Tokens generated.", &Series::generation_total),
      family("vllm:request_success_total", "Requests that ended, by reason.", MetricType::Counter,
             [](const Series& series, std::vector<ClientMetric>& out) {
               for (std::size_t i = 0; i < kFinishReasons.size(); ++i) {
                 out.push_back(counter(series.model, value(series.finished[i])));
                 out.back().label.push_back({"finished_reason", kFinishReasons[i].second});
               }
             }),
      histograms("vllm:time_to_first_token_seconds", "Arrival to first token.", &Series::first_token),
      histograms("vllm:inter_token_latency_seconds", "Between two tokens of a request.",
                 &Series::inter_token),
      histograms("vllm:time_per_output_token_seconds", "The older name of vllm:inter_token_latency_seconds.",
                 &Series::inter_token),
      histograms("vllm:request_time_per_output_token_seconds", "Mean time between the tokens of a request.",
                 &Series::mean_inter_token),
      histograms("vllm:e2e_request_latency_seconds", "Arrival to end of a request.", &Series::request),
      histograms("vllm:request_queue_time_seconds", "Queued to first step of a request.", &Series::queue),
      histograms("vllm:request_prompt_tokens", "Prompt tokens of a request.", &Series::prompt_tokens),
      histograms("vllm:request_generation_tokens", "Tokens generated for a request.",
                 &Series::generation_tokens),
      histograms("vllm:iteration_tokens_total", "Tokens of an engine step.", &Series::step_tokens),
      levels("mlxs_requests_paused", "Requests whose client reads too slowly.", MetricType::Gauge,
             [](const Stats& s) { return s.paused; }),
      levels("mlxs_requests_admitted_total", "Requests that got a place.", MetricType::Counter,
             [](const Stats& s) { return s.admitted; }),
      levels("mlxs_requests_refused_total", "Requests that found the queue full, or could never fit.",
             MetricType::Counter, [](const Stats& s) { return s.refused; }),
      split("mlxs_kv_pages", "KV pages by what they hold.", MetricType::Gauge, "state",
            {{"held", [](const Stats& s) { return static_cast<double>(s.kv_pages_held); }},
             {"cached", [](const Stats& s) { return static_cast<double>(s.kv_pages_cached); }},
             {"free", [](const Stats& s) { return static_cast<double>(s.kv_pages_free); }}}),
      levels("mlxs_steps_total", "Steps of the engine.", MetricType::Counter,
             [](const Stats& s) { return s.steps; }),
      family("mlxs_step_seconds_total", "Time of the engine's steps: planning, the model, giving tokens out.",
             MetricType::Counter,
             [](const Series& series, std::vector<ClientMetric>& out) {
               for (std::size_t i = 0; i < kStepParts.size(); ++i) {
                 out.push_back(counter(series.model, series.step_seconds[i].load(std::memory_order_relaxed)));
                 out.back().label.push_back({"part", kStepParts[i]});
               }
             }),
      levels("mlxs_slo_requests_total", "Requests with a latency target.", MetricType::Counter,
             [](const Stats& s) { return s.slo_requests; }),
      levels("mlxs_slo_met_total", "Requests that met their target.", MetricType::Counter,
             [](const Stats& s) { return s.slo_met; }),
      split("mlxs_slo_missed_total", "Requests that missed their target, by which.", MetricType::Counter,
            "target",
            {{"ttft", [](const Stats& s) { return static_cast<double>(s.slo_missed_ttft); }},
             {"tpot", [](const Stats& s) { return static_cast<double>(s.slo_missed_tpot); }}}),
      levels("mlxs_goodput_tokens_total", "Tokens of requests that met their target.", MetricType::Counter,
             [](const Stats& s) { return s.goodput_tokens; }),
  };
}

std::string MetricsObserver::render(std::span<const EngineSchedulerStats> now) const {
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, impl_->families(now));
  return std::move(text).str();
}

}  // namespace mlxs
