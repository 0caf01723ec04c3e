#include "telemetry/metric_families.h"

#include <fmt/format.h>

#include <initializer_list>

#include "telemetry/device_families.h"
#include "telemetry/family_builder.h"
#include "telemetry/server_families.h"

namespace mlxs {
namespace {

using Stats = EngineSchedulerStats;
constexpr const char* kModel = "model_name";

class Registry {
 public:
  Registry(const SeriesList<ModelSeries>& models, const SeriesList<TenantSeries>& tenants,
           std::span<const ThroughputNow> rates, const MetricsNow& now)
      : models_(models), tenants_(tenants), rates_(rates), now_(now) {}

  std::vector<prometheus::MetricFamily> take() {
    vllm();
    prefix_cache();
    steps();
    scheduling();
    requests();
    tenants();
    throughput();
    loaded_models();
    if (now_.device != nullptr) add_device_families(out_, *now_.device);
    if (now_.server != nullptr) add_server_families(out_, *now_.server);
    if (now_.exports != nullptr) add_export_families(out_, *now_.exports);
    add_process_families(out_);
    return out_.take();
  }

 private:
  using Read = double (*)(const Stats&);
  using Named = std::pair<const char*, Read>;

  // One metric a loaded model.
  void level(const char* name, const char* help, Read read) { per_model(out_.gauge(name, help), read); }
  void total(const char* name, const char* help, Read read) { per_model(out_.counter(name, help), read); }
  void per_model(FamilyBuilder& family, Read read) {
    for (const Stats& s : now_.schedulers) family.add({{kModel, s.model}}, read(s));
  }
  // One a loaded model and value of `label`.
  void split(FamilyBuilder& family, const char* label, std::initializer_list<Named> values) {
    for (const Stats& s : now_.schedulers) {
      for (const auto& [value, read] : values) family.add({{kModel, s.model}, {label, value}}, read(s));
    }
  }
  // One of every model that was ever seen.
  void counted(const char* name, const char* help, Counter ModelSeries::*member) {
    out_.counter(name, help);
    models_.each([&](const ModelSeries& m) { out_.add({{kModel, m.name}}, value(m.*member)); });
  }
  void histogram(const char* name, const char* help, AtomicHistogram ModelSeries::*member) {
    out_.histogram(name, help);
    models_.each([&](const ModelSeries& m) { out_.add({{kModel, m.name}}, m.*member); });
  }

  void vllm();
  void prefix_cache();
  void steps();
  void scheduling();
  void requests();
  void tenants();
  void loaded_models();
  void throughput();

  const SeriesList<ModelSeries>& models_;
  const SeriesList<TenantSeries>& tenants_;
  const std::span<const ThroughputNow> rates_;
  const MetricsNow& now_;
  FamilyBuilder out_;
};

double number(auto value) { return static_cast<double>(value); }
double seconds(double ms) { return ms * 1e-3; }
double kv_usage(const Stats& s) {
  return s.kv_pages_total > 0 ? static_cast<double>(s.kv_pages_held) / s.kv_pages_total : 0.0;
}

void Registry::vllm() {
  level("vllm:num_requests_running", "Requests that hold a place, paused ones included.",
        [](const Stats& s) { return number(s.running + s.paused); });
  level("vllm:num_requests_waiting", "Requests waiting for a place.",
        [](const Stats& s) { return number(s.waiting); });
  split(out_.gauge("vllm:num_requests_waiting_by_reason",
                   "Of them, by reason; mlxs_blocked_tokens tells slots, pages and window apart."),
        "reason", {{"capacity", [](const Stats& s) { return number(s.waiting); }}});
  level("vllm:kv_cache_usage_perc", "KV pages in use; 1 is all of them.", kv_usage);
  level("vllm:gpu_cache_usage_perc", "The older name of vllm:kv_cache_usage_perc.", kv_usage);
  level("vllm:cpu_cache_usage_perc", "Pages that preempted requests have on the host; 1 is all it can keep.",
        [](const Stats& s) { return s.swap_slots > 0 ? number(s.swap_slots_used) / s.swap_slots : 0.0; });
  total("vllm:num_preemptions_total", "Requests that lost their pages and were recomputed.",
        [](const Stats& s) { return number(s.preemptions); });
  total("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
        [](const Stats& s) { return number(s.prefix_query_tokens); });
  total("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
        [](const Stats& s) { return number(s.prefix_hit_tokens); });
  counted("vllm:prompt_tokens_total", "Prompt tokens of requests that were prefilled.",
          &ModelSeries::prompt_total);
  out_.counter("vllm:prompt_tokens_by_source_total", "Of them, by where their KV came from.");
  models_.each([&](const ModelSeries& m) {
    out_.add({{kModel, m.name}, {"source", "local_compute"}}, value(m.prompt_computed_total));
    out_.add({{kModel, m.name}, {"source", "local_cache_hit"}}, value(m.prompt_cached_total));
  });
  counted("vllm:prompt_tokens_cached_total", "Of them, those that were found in the prefix cache.",
          &ModelSeries::prompt_cached_total);
  counted("vllm:generation_tokens_total", "Tokens generated.", &ModelSeries::generation_total);
  out_.counter("vllm:request_success_total", "Requests that ended, by reason.");
  models_.each([&](const ModelSeries& m) {
    for (std::size_t i = 0; i < kFinishReasons.size(); ++i) {
      out_.add({{kModel, m.name}, {"finished_reason", kFinishReasons[i].second}}, value(m.finished[i]));
    }
  });
  histogram("vllm:time_to_first_token_seconds", "Arrival to first token.", &ModelSeries::first_token);
  histogram("vllm:inter_token_latency_seconds", "Between two tokens of a request.",
            &ModelSeries::inter_token);
  histogram("vllm:time_per_output_token_seconds", "The older name of vllm:inter_token_latency_seconds.",
            &ModelSeries::inter_token);
  histogram("vllm:request_time_per_output_token_seconds", "Mean time between the tokens of a request.",
            &ModelSeries::mean_inter_token);
  histogram("vllm:e2e_request_latency_seconds", "Arrival to end of a request.", &ModelSeries::request);
  histogram("vllm:request_queue_time_seconds", "Queued to first step of a request.", &ModelSeries::queue);
  histogram("vllm:request_prefill_time_seconds", "A place and pages to first token.", &ModelSeries::prefill);
  histogram("vllm:request_decode_time_seconds", "First token to the end.", &ModelSeries::decode);
  histogram("vllm:request_inference_time_seconds", "A place and pages to the end.", &ModelSeries::inference);
  histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", &ModelSeries::prompt_tokens);
  histogram("vllm:request_generation_tokens", "Tokens generated for a request.",
            &ModelSeries::generation_tokens);
  histogram("vllm:request_params_max_tokens", "Tokens that a request might have generated.",
            &ModelSeries::max_tokens);
  histogram("vllm:request_max_num_generation_tokens", "Tokens of the longest choice of a prompt.",
            &ModelSeries::longest_choice);
  histogram("vllm:request_params_n", "Choices of a prompt.", &ModelSeries::choices);
  histogram("vllm:request_prefill_kv_computed_tokens", "Prompt tokens that were not cached.",
            &ModelSeries::computed_tokens);
  histogram("vllm:request_num_preemptions", "Times that a request lost its pages.",
            &ModelSeries::preemptions);
  histogram("vllm:iteration_tokens_total", "Tokens of an engine step.", &ModelSeries::step_tokens);
  for (const auto& [name, help] :
       {std::pair{"vllm:spec_decode_num_drafts_total", "Drafts; none are made."},
        std::pair{"vllm:spec_decode_num_draft_tokens_total", "Tokens of drafts."},
        std::pair{"vllm:spec_decode_num_accepted_tokens_total", "Tokens of drafts that were kept."}}) {
    total(name, help, [](const Stats&) { return 0.0; });
  }
  out_.gauge("vllm:cache_config_info", "The KV cache: tokens of a page, pages, pages on the host.");
  for (const Stats& s : now_.schedulers) {
    out_.add({{kModel, s.model},
              {"block_size", fmt::format("{}", s.kv_page_tokens)},
              {"num_gpu_blocks", fmt::format("{}", s.kv_pages_total)},
              {"num_cpu_blocks", fmt::format("{}", s.swap_slots)}},
             1);
  }
  out_.gauge("vllm:lora_requests_info", "Adapters whose requests run and wait; none can be loaded.");
  out_.add({{"max_lora", "0"}, {"running_lora_adapters", ""}, {"waiting_lora_adapters", ""}}, 0);
}

void Registry::prefix_cache() {
  out_.counter("mlxs_prefix_cache_misses_total",
               "Requests that did not find their whole prompt in the prefix cache, by reason.");
  for (const Stats& s : now_.schedulers) {
    for (const auto& [reason, count] : s.prefix_misses) {
      out_.add({{kModel, s.model}, {"reason", std::string(reason)}}, number(count));
    }
  }
  level("mlxs_prefix_cache_entries", "Cached prompts that nobody uses at the moment.",
        [](const Stats& s) { return number(s.prefix_entries); });
  total("mlxs_prefix_cache_evicted_pages_total", "Cached KV pages that made room for others.",
        [](const Stats& s) { return number(s.prefix_evicted_pages); });
  total("mlxs_prefix_cache_expired_pages_total", "Cached KV pages that were unused for too long.",
        [](const Stats& s) { return number(s.prefix_expired_pages); });
  total("mlxs_prefix_cache_disk_saved_pages_total", "KV pages written to the disk tier.",
        [](const Stats& s) { return number(s.disk_saved_pages); });
  total("mlxs_prefix_cache_disk_restored_pages_total", "KV pages brought back from the disk tier.",
        [](const Stats& s) { return number(s.disk_restored_pages); });
  level("mlxs_prefix_cache_disk_bytes", "Bytes in the disk tier's folder, of all models.",
        [](const Stats& s) { return number(s.disk_bytes); });
  total("mlxs_prefix_cache_disk_failed_writes_total", "Pages that the disk tier could not write.",
        [](const Stats& s) { return number(s.disk_failed_writes); });
  split(out_.gauge("mlxs_kv_pages", "KV pages by what they hold."), "state",
        {{"held", [](const Stats& s) { return number(s.kv_pages_held); }},
         {"cached", [](const Stats& s) { return number(s.kv_pages_cached); }},
         {"free", [](const Stats& s) { return number(s.kv_pages_free); }}});
  total("mlxs_kv_branched_pages_total",
        "Last pages of prompts that were copied from an equal prompt's, for choices that go on apart.",
        [](const Stats& s) { return number(s.kv_pages_branched); });
  total("mlxs_kv_passed_pages_total",
        "KV pages given up by running requests because the attention window, of all layers or of those that "
        "have pages of their own, left them behind.",
        [](const Stats& s) { return number(s.kv_pages_passed + s.kv_window_pages_passed); });
  split(
      out_.gauge("mlxs_kv_window_pages",
                 "KV pages of their own of the layers with a window, by what they hold, in models that have "
                 "other layers, too."),
      "state",
      {{"held", [](const Stats& s) { return number(s.kv_window_pages_held); }},
       {"cached", [](const Stats& s) { return number(s.kv_window_pages_cached); }},
       {"free", [](const Stats& s) {
          return number(s.kv_window_pages_total - s.kv_window_pages_held - s.kv_window_pages_cached);
        }}});
  total("mlxs_kv_window_evicted_pages_total",
        "KV pages of layers with a window that were kept for prompts that begin alike and made room for "
        "others.",
        [](const Stats& s) { return number(s.kv_window_pages_evicted); });
  level("mlxs_prefix_cache_pinned_prompts", "Prompts that stay in the cache because requests pinned them.",
        [](const Stats& s) { return number(s.pinned_prompts); });
  level("mlxs_prefix_cache_pinned_pages", "KV pages that they hold.",
        [](const Stats& s) { return number(s.pinned_pages); });
  total("mlxs_prefix_cache_pin_hits_total", "Requests that began with a pinned prompt.",
        [](const Stats& s) { return number(s.pin_hits); });
  split(out_.counter("mlxs_prefix_cache_pins_total", "Pins that were asked for, and how they ended."),
        "event",
        {{"pinned", [](const Stats& s) { return number(s.pins); }},
         {"expired", [](const Stats& s) { return number(s.pins_expired); }},
         {"displaced", [](const Stats& s) { return number(s.pins_displaced); }},
         {"refused", [](const Stats& s) { return number(s.pins_refused); }}});
  level("mlxs_kv_oldest_cached_page_age_seconds", "Since the least recently used cached page was used.",
        [](const Stats& s) { return s.oldest_cached_page_seconds; });
  const auto ages = [this](const char* name, const char* help, PageAges Stats::*member) {
    out_.histogram(name, help);
    for (const Stats& s : now_.schedulers) out_.add({{kModel, s.model}}, s.*member);
  };
  ages("mlxs_kv_page_reuse_age_seconds",
       "For how long cached pages had been unused when a prompt found them.", &Stats::reused_page_ages);
  ages("mlxs_kv_page_evict_age_seconds", "For how long cached pages had been unused when others took them.",
       &Stats::evicted_page_ages);
  level("mlxs_swap_page_seconds", "Measured: a KV page to the host, or back.",
        [](const Stats& s) { return seconds(s.swap_page_ms); });
}

void Registry::steps() {
  total("mlxs_steps_total", "Steps of the engine.", [](const Stats& s) { return number(s.steps); });
  counted("mlxs_failed_steps_total", "Steps that failed and ended their requests.",
          &ModelSeries::failed_steps);
  histogram("mlxs_step_duration_seconds", "A step of the engine.", &ModelSeries::step);
  out_.counter(
      "mlxs_step_seconds_total",
      "Time of the engine's steps: planning, grammars' masks, handing the model to the device, sampling, "
      "waiting for the device, giving tokens out.");
  models_.each([&](const ModelSeries& m) {
    for (std::size_t i = 0; i < kStepParts.size(); ++i) {
      out_.add({{kModel, m.name}, {"part", kStepParts[i]}}, value(m.step_seconds[i]));
    }
  });
  level("mlxs_step_fixed_seconds", "Measured cost of a step: this much,",
        [](const Stats& s) { return seconds(s.step_fixed_ms); });
  level("mlxs_step_token_seconds", "and this much for each of its tokens.",
        [](const Stats& s) { return seconds(s.step_token_ms); });
  level("mlxs_step_ring_depth", "Steps whose tokens may be on their way out at once.",
        [](const Stats& s) { return number(s.ring_depth); });
  total("mlxs_steps_ahead_total", "Steps that were handed to the device while the one before ran.",
        [](const Stats& s) { return number(s.steps_ahead); });
  total("mlxs_step_void_rows_total", "Rows of steps whose request had ended meanwhile.",
        [](const Stats& s) { return number(s.void_rows); });
  total("mlxs_step_hidden_seconds_total", "The host's work on steps that was done while others ran.",
        [](const Stats& s) { return number(s.hidden_seconds); });
  level("mlxs_step_token_budget", "Tokens that the last step might have had.",
        [](const Stats& s) { return number(s.token_budget); });
}

void Registry::scheduling() {
  out_.gauge("mlxs_blocked_tokens",
             "Tokens that the last step could have computed and did not, by what they lacked.");
  for (const Stats& s : now_.schedulers) {
    for (std::size_t i = 0; i < kTokenBlocks; ++i) {
      out_.add({{kModel, s.model}, {"cause", std::string(kTokenBlockNames[i])}}, number(s.blocked_tokens[i]));
    }
  }
  level("mlxs_requests_paused", "Requests whose client reads too slowly.",
        [](const Stats& s) { return number(s.paused); });
  total("mlxs_requests_admitted_total", "Requests that got a place.",
        [](const Stats& s) { return number(s.admitted); });
  total("mlxs_requests_refused_total", "Requests that found the queue full, or could never fit.",
        [](const Stats& s) { return number(s.refused); });
  level("mlxs_concurrency_limit", "Requests that may run at once.",
        [](const Stats& s) { return number(s.concurrency_limit); });
  total("mlxs_requests_overtaking_total", "Requests that started before one that lacked KV pages.",
        [](const Stats& s) { return number(s.overtakings); });
  total("mlxs_requests_displaced_total", "Of the refused: had a place in the full queue and lost it.",
        [](const Stats& s) { return number(s.displaced); });
  total("mlxs_swap_preemptions_total", "Preemptions whose KV pages were kept on the host.",
        [](const Stats& s) { return number(s.swaps); });
  total("mlxs_swap_pages_total", "KV pages copied to the host by preemptions.",
        [](const Stats& s) { return number(s.swapped_pages); });
  split(out_.gauge("mlxs_swap_slots", "KV pages that the host can keep, by what they hold."), "state",
        {{"used", [](const Stats& s) { return number(s.swap_slots_used); }},
         {"free", [](const Stats& s) { return number(s.swap_slots - s.swap_slots_used); }}});
  split(out_.counter("mlxs_window_batches_total", "Batches of requests that started, by their way."), "path",
        {{"fast", [](const Stats& s) { return number(s.window.fast_path); }},
         {"window", [](const Stats& s) { return number(s.window.normal); }}});
  level("mlxs_window_seconds", "For how long requests are held for others to join, at most.",
        [](const Stats& s) { return seconds(s.window.window_ms); });
  level("mlxs_window_batch_size", "So many requests need not wait for more.",
        [](const Stats& s) { return number(s.window.batch_size); });
  level("mlxs_window_queue_depth_smoothed", "Waiting requests, as the adaptive window sees them.",
        [](const Stats& s) { return s.window.ema_queue_depth; });
  total("mlxs_window_degradations_total", "Times that the window shrank because steps were slow.",
        [](const Stats& s) { return number(s.window.degradation_events); });
  total("mlxs_window_adjustments_total", "Times that auto-tune changed the batch size.",
        [](const Stats& s) { return number(s.window.adjustments); });
  total("mlxs_window_transitions_total", "Times that the adaptive window changed.",
        [](const Stats& s) { return number(s.window.transitions); });
  total("mlxs_slo_requests_total", "Requests with a latency target.",
        [](const Stats& s) { return number(s.slo_requests); });
  total("mlxs_slo_met_total", "Requests that met their target.",
        [](const Stats& s) { return number(s.slo_met); });
  split(out_.counter("mlxs_slo_missed_total", "Requests that missed their target, by which."), "target",
        {{"ttft", [](const Stats& s) { return number(s.slo_missed_ttft); }},
         {"tpot", [](const Stats& s) { return number(s.slo_missed_tpot); }}});
  total("mlxs_slo_refused_total", "Requests refused because they could not make their target.",
        [](const Stats& s) { return number(s.slo_refused); });
  total("mlxs_slo_promoted_total", "Requests moved up because their target was at risk.",
        [](const Stats& s) { return number(s.slo_promoted); });
  total("mlxs_goodput_tokens_total", "Tokens of requests that met their target.",
        [](const Stats& s) { return number(s.goodput_tokens); });
}

void Registry::requests() {
  out_.counter("mlxs_request_part_seconds_total",
               "Where requests' time went; the parts follow one another and sum to it.");
  models_.each([&](const ModelSeries& m) {
    for (std::size_t i = 0; i < kRequestParts; ++i) {
      out_.add({{kModel, m.name}, {"part", std::string(kRequestPartNames[i])}}, value(m.part_seconds[i]));
    }
  });
  histogram("mlxs_tokenize_duration_seconds", "Template and tokenizer of a prompt.", &ModelSeries::tokenize);
  out_.counter("mlxs_mask_seconds_total", "Computing which tokens grammars allow, over requests that ended.");
  models_.each([&](const ModelSeries& m) { out_.add({{kModel, m.name}}, value(m.mask_seconds)); });
}

void Registry::tenants() {
  const auto counted_tenant = [this](const char* name, const char* help, auto TenantSeries::*member) {
    out_.counter(name, help);
    tenants_.each([&](const TenantSeries& t) { out_.add({{"tenant", t.name}}, value(t.*member)); });
  };
  counted_tenant("mlxs_tenant_requests_total", "Requests of a tenant that ended.", &TenantSeries::requests);
  counted_tenant("mlxs_tenant_errors_total", "Of them, those that failed.", &TenantSeries::errors);
  out_.counter("mlxs_tenant_tokens_total", "Tokens of a tenant's requests.");
  tenants_.each([&](const TenantSeries& t) {
    out_.add({{"tenant", t.name}, {"kind", "prompt"}}, value(t.prompt_tokens));
    out_.add({{"tenant", t.name}, {"kind", "cached"}}, value(t.cached_tokens));
    out_.add({{"tenant", t.name}, {"kind", "generated"}}, value(t.generated_tokens));
  });
  counted_tenant("mlxs_tenant_queue_seconds_total", "For how long a tenant's requests waited.",
                 &TenantSeries::queue_seconds);
  counted_tenant("mlxs_tenant_request_seconds_total", "Their whole time.", &TenantSeries::e2e_seconds);
  out_.histogram("mlxs_tenant_time_to_first_token_seconds", "Arrival to first token, by tenant.");
  tenants_.each([&](const TenantSeries& t) { out_.add({{"tenant", t.name}}, t.first_token); });
}

void Registry::throughput() {
  using Rates = decltype(ThroughputNow::tokens_per_second);
  const auto windows = [this](const char* name, const char* help, Rates ThroughputNow::*rates) {
    out_.gauge(name, help);
    for (const ThroughputNow& model : rates_) {
      for (std::size_t i = 0; i < SlidingRate::kWindowSeconds.size(); ++i) {
        const std::string window = fmt::format("{}s", SlidingRate::kWindowSeconds[i]);
        out_.add({{kModel, model.model}, {"window", window}}, (model.*rates)[i]);
      }
    }
  };
  windows("mlxs_throughput_tokens_per_second", "Tokens generated in the last seconds.",
          &ThroughputNow::tokens_per_second);
  windows("mlxs_throughput_requests_per_second", "Requests that ended in them.",
          &ThroughputNow::requests_per_second);
}

void Registry::loaded_models() {
  out_.gauge("mlxs_loaded_models", "Models in memory.").add({}, number(now_.models.size()));
  const auto of_model = [this](const char* name, const char* help, double (*read)(const ModelInfo&)) {
    out_.gauge(name, help);
    for (const ModelInfo& m : now_.models) out_.add({{kModel, m.id}}, read(m));
  };
  of_model("mlxs_model_load_seconds", "What loading the model took.",
           [](const ModelInfo& m) { return m.load_seconds; });
  of_model("mlxs_model_weight_bytes", "Its weights in memory.",
           [](const ModelInfo& m) { return number(m.weight_bytes); });
  of_model("mlxs_model_kv_bytes", "Its KV cache in memory.",
           [](const ModelInfo& m) { return number(m.kv_bytes); });
}

}  // namespace

std::vector<prometheus::MetricFamily> metric_families(const SeriesList<ModelSeries>& models,
                                                      const SeriesList<TenantSeries>& tenants,
                                                      std::span<const ThroughputNow> rates,
                                                      const MetricsNow& now) {
  return Registry(models, tenants, rates, now).take();
}

}  // namespace mlxs
