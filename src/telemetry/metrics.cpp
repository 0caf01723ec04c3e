#include "telemetry/metrics.h"

#include <prometheus/text_serializer.h>

#include <sstream>
#include <utility>
#include <vector>

#include "telemetry/metric_families.h"
#include "telemetry/series.h"

namespace mlxs {
namespace {

// Clients may name tenants freely where no keys are asked for.
constexpr std::size_t kTenants = 64, kTenantName = 64;
constexpr std::size_t kModels = 256;

// At most so many bytes, whole characters of UTF-8.
std::string_view cut(std::string_view text, std::size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
  return text.substr(0, most);
}

}  // namespace

struct MetricsObserver::Impl {
  SeriesList<ModelSeries> models{kModels};
  SeriesList<TenantSeries> tenants{kTenants};
  SteadyClock steady;
  const Clock* clock = &steady;
};

MetricsObserver::MetricsObserver() : impl_(std::make_unique<Impl>()) {}
MetricsObserver::MetricsObserver(const Clock& clock) : impl_(std::make_unique<Impl>()) {
  impl_->clock = &clock;
}
MetricsObserver::~MetricsObserver() = default;

void MetricsObserver::on_first_token(std::string_view model, double ttft_seconds) {
  ModelSeries& series = impl_->models.of(model);
  series.first_token.observe(ttft_seconds);
  add(series.generation_total);
  series.generated_rate.add(impl_->clock->now());
}

void MetricsObserver::on_inter_token(std::string_view model, double seconds) {
  ModelSeries& series = impl_->models.of(model);
  series.inter_token.observe(seconds);
  add(series.generation_total);
  series.generated_rate.add(impl_->clock->now());
}

void MetricsObserver::on_finished(const RequestRecord& record) {
  ModelSeries& series = impl_->models.of(record.model);
  for (std::size_t i = 0; i < kFinishReasons.size(); ++i) {
    if (record.finish == kFinishReasons[i].first) add(series.finished[i]);
  }
  series.ended_rate.add(impl_->clock->now());
  series.request.observe(record.e2e_seconds);
  series.queue.observe(record.queue_seconds);
  series.prompt_tokens.observe(record.prompt_tokens);
  series.generation_tokens.observe(record.generated_tokens);
  series.max_tokens.observe(record.max_tokens);
  const auto part = [&record](RequestPart which) {
    return record.part_seconds[static_cast<std::size_t>(which)];
  };
  for (std::size_t i = 0; i < kRequestParts; ++i) add_seconds(series.part_seconds[i], record.part_seconds[i]);
  add_seconds(series.mask_seconds, record.mask_seconds);
  series.tokenize.observe(part(RequestPart::kTokenize));
  const bool whole = record.finish == "stop" || record.finish == "length";
  const double decoding = record.e2e_seconds - record.ttft_seconds;
  if (whole && record.generated_tokens > 1) {  // ends with its last token
    series.mean_inter_token.observe(decoding / (record.generated_tokens - 1));
  }
  // A prompt counts once it was processed: the first token proves it, of an encoder the end.
  if (record.ttft_seconds > 0 || record.finish == "stop") {
    add(series.prompt_total, static_cast<std::uint64_t>(record.prompt_tokens));
    add(series.prompt_cached_total, static_cast<std::uint64_t>(record.cached_prompt_tokens));
    const int computed = record.prompt_tokens - record.cached_prompt_tokens;
    add(series.prompt_computed_total, static_cast<std::uint64_t>(computed));
    series.computed_tokens.observe(computed);
  }
  if (record.ttft_seconds > 0) {
    double before = 0;  // scheduled, as vLLM counts prefill from there
    for (const RequestPart which :
         {RequestPart::kPrepare, RequestPart::kTokenize, RequestPart::kGrammar, RequestPart::kQueue}) {
      before += part(which);
    }
    const double prefill = record.ttft_seconds > before ? record.ttft_seconds - before : 0;
    series.prefill.observe(prefill);
    series.decode.observe(decoding);
    series.inference.observe(prefill + decoding);
  }

  TenantSeries& tenant = impl_->tenants.of(cut(record.user, kTenantName));
  add(tenant.requests);
  if (record.finish == "error") add(tenant.errors);
  add(tenant.prompt_tokens, static_cast<std::uint64_t>(record.prompt_tokens));
  add(tenant.cached_tokens, static_cast<std::uint64_t>(record.cached_prompt_tokens));
  add(tenant.generated_tokens, static_cast<std::uint64_t>(record.generated_tokens));
  add_seconds(tenant.queue_seconds, record.queue_seconds);
  add_seconds(tenant.e2e_seconds, record.e2e_seconds);
  if (record.ttft_seconds > 0) tenant.first_token.observe(record.ttft_seconds);
}

void MetricsObserver::on_choice_ended(const RequestTimeline& ended, const PromptChoices* last_of) {
  ModelSeries& series = impl_->models.of(ended.model);
  series.preemptions.observe(static_cast<double>(ended.preemptions.size()) + ended.preemptions_omitted);
  if (last_of == nullptr) return;
  series.choices.observe(last_of->choices);
  series.longest_choice.observe(last_of->longest_tokens);
}

std::vector<ThroughputNow> MetricsObserver::throughput() const {
  std::vector<ThroughputNow> all;
  const TimePoint now = impl_->clock->now();
  impl_->models.each([&](const ModelSeries& model) {
    ThroughputNow& one = all.emplace_back();
    one.model = model.name;
    for (std::size_t i = 0; i < SlidingRate::kWindowSeconds.size(); ++i) {
      const int seconds = SlidingRate::kWindowSeconds[i];
      one.tokens_per_second[i] = model.generated_rate.per_second(now, seconds);
      one.requests_per_second[i] = model.ended_rate.per_second(now, seconds);
    }
  });
  return all;
}

void MetricsObserver::on_step(const StepRecord& record) {
  ModelSeries& series = impl_->models.of(record.model);
  series.step_tokens.observe(record.prefill_tokens + record.decode_rows);
  series.step.observe(record.plan_seconds + record.run_seconds + record.commit_seconds);
  const double parts[] = {record.plan_seconds,   record.mask_seconds, record.launch_seconds,
                          record.sample_seconds, record.wait_seconds, record.commit_seconds};
  for (std::size_t i = 0; i < kStepParts.size(); ++i) add_seconds(series.step_seconds[i], parts[i]);
  if (record.failed) add(series.failed_steps);
}

std::vector<prometheus::MetricFamily> MetricsObserver::families(const MetricsNow& now) const {
  for (const EngineSchedulerStats& model : now.schedulers) impl_->models.of(model.model);  // zeros at once
  return metric_families(impl_->models, impl_->tenants, throughput(), now);
}

std::string MetricsObserver::render(const MetricsNow& now) const {
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families(now));
  return std::move(text).str();
}

std::string metrics_reference() {
  MetricsObserver metrics;
  EngineSchedulerStats stats;
  stats.model = "m";
  stats.prefix_misses = {{"evicted", 0}, {"expired", 0}, {"diverged", 0}, {"new", 0}, {"window", 0}};
  ModelInfo model;
  model.id = "m";
  const ServerCounters server;
  const ExportCounts exports;
  MetalOptimizationsStats device;
  device.memory_pool.enabled = device.blit_queue.enabled = device.command_buffer_ring.enabled = true;
  metrics.on_finished({.model = "m", .user = "t"});
  std::string page;
  for (const auto& family : metrics.families({.schedulers = std::span(&stats, 1),
                            .models = std::span(&model, 1),
                            .server = &server,
                            .exports = &exports,
                            .device = &device})) {
    std::vector<std::string> labels;  // with the values of those that have few words
    for (const auto& metric : family.metric) {
      for (std::size_t i = 0; i < metric.label.size(); ++i) {
        if (labels.size() <= i) labels.push_back("`" + metric.label[i].name + "`");
        const std::string& value = metric.label[i].value;
        const std::string& name = metric.label[i].name;
        const bool word = name != "model_name" && name != "engine" && name != "tenant" && !value.empty();
        if (word && labels[i].find(value) == std::string::npos) {
          labels[i] += (labels[i].ends_with('`') ? ": " : ", ") + value;
        }
      }
    }
    std::string listed;
    for (const std::string& label : labels) listed += (listed.empty() ? "" : "; ") + label;
    const char* type = family.type == prometheus::MetricType::Counter ? "counter"
                       : family.type == prometheus::MetricType::Gauge ? "gauge"
                                                                      : "histogram";
    page += "| `" + family.name + "` | " + type + " | " + listed + " | " + family.help + " |\n";
  }
  return page;
}

}  // namespace mlxs
