#include "telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "telemetry/histogram.h"

namespace mlxs {
namespace {

using testing::HasSubstr;
using testing::Not;

EngineSchedulerStats stats_of(const std::string& model) {
  EngineSchedulerStats stats;
  stats.model = model;
  stats.running = 3;
  stats.waiting = 5;
  stats.paused = 1;
  stats.preemptions = 7;
  stats.kv_pages_total = 8;
  stats.kv_pages_held = 2;
  stats.prefix_query_tokens = 100;
  stats.prefix_hit_tokens = 40;
  return stats;
}

TEST(AtomicHistogram, BoundsAreInclusive) {
  static constexpr double kBounds[] = {1, 2};
  AtomicHistogram histogram(kBounds);
  for (const double value : {0.5, 1.0, 1.5, 2.0, 3.0, 1e9}) histogram.observe(value);
  EXPECT_EQ(histogram.count(0), 2u);
  EXPECT_EQ(histogram.count(1), 2u);
  EXPECT_EQ(histogram.count(2), 2u);
  EXPECT_DOUBLE_EQ(histogram.sum(), 8.0 + 1e9);
}

TEST(AtomicHistogram, LosesNothingUnderThreads) {
  static constexpr double kBounds[] = {1};
  AtomicHistogram histogram(kBounds);
  constexpr int kEach = 20'000;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&histogram] {
      for (int k = 0; k < kEach; ++k) histogram.observe(k % 2 == 0 ? 1 : 2);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(histogram.count(0), 2u * kEach);
  EXPECT_EQ(histogram.count(1), 2u * kEach);
  EXPECT_DOUBLE_EQ(histogram.sum(), 4.0 * kEach * 1.5);
}

TEST(Metrics, AModelHasZerosFromTheFirstScrapeOn) {
  const MetricsObserver metrics;
  const std::vector<EngineSchedulerStats> now{stats_of("m")};
  const std::string text = metrics.render({.schedulers = now});
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total{model_name=\"m\",engine=\"0\"} 0\n"));
  EXPECT_THAT(
      text,
      HasSubstr("vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"abort\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_count{model_name=\"m\",engine=\"0\"} 0\n"));
}

TEST(Metrics, GaugesAreThoseOfTheMoment) {
  const MetricsObserver metrics;
  const std::string text = metrics.render({.schedulers = std::vector{stats_of("a"), stats_of("b")}});
  for (const std::string model : {"a", "b"}) {
    EXPECT_THAT(text, HasSubstr("vllm:num_requests_running{model_name=\"" + model + "\",engine=\"0\"} 4\n"));
    EXPECT_THAT(text, HasSubstr("vllm:num_requests_waiting{model_name=\"" + model + "\",engine=\"0\"} 5\n"));
    EXPECT_THAT(text,
                HasSubstr("vllm:kv_cache_usage_perc{model_name=\"" + model + "\",engine=\"0\"} 0.25\n"));
    EXPECT_THAT(text, HasSubstr("vllm:num_preemptions_total{model_name=\"" + model + "\",engine=\"0\"} 7\n"));
    EXPECT_THAT(text,
                HasSubstr("vllm:prefix_cache_hits_total{model_name=\"" + model + "\",engine=\"0\"} 40\n"));
  }
  EXPECT_THAT(text, HasSubstr("# TYPE vllm:num_requests_running gauge\n"));
}

TEST(Metrics, ARequestIsCountedAsItGoes) {
  MetricsObserver metrics;
  metrics.on_step({.model = "m", .prefill_tokens = 30, .decode_rows = 2});
  metrics.on_first_token("m", 0.03);
  metrics.on_inter_token("m", 0.02);
  metrics.on_inter_token("m", 0.3);
  std::string text = metrics.render({});
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total{model_name=\"m\",engine=\"0\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_total{model_name=\"m\",engine=\"0\"} 0\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:iteration_tokens_total_bucket{model_name=\"m\",engine=\"0\",le=\"16\"} 0\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:iteration_tokens_total_bucket{model_name=\"m\",engine=\"0\",le=\"32\"} 1\n"));
  EXPECT_THAT(
      text,
      HasSubstr("vllm:inter_token_latency_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"0.025\"} 1\n"));
  EXPECT_THAT(
      text,
      HasSubstr("vllm:inter_token_latency_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"+Inf\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:inter_token_latency_seconds_sum{model_name=\"m\",engine=\"0\"} 0.32\n"));

  metrics.on_finished({.model = "m",
                       .finish = "length",
                       .prompt_tokens = 30,
                       .generated_tokens = 3,
                       .queue_seconds = 0.01,
                       .ttft_seconds = 0.03,
                       .e2e_seconds = 0.35});
  text = metrics.render({});
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_total{model_name=\"m\",engine=\"0\"} 30\n"));
  EXPECT_THAT(
      text,
      HasSubstr("vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"length\"} 1\n"));
  EXPECT_THAT(
      text,
      HasSubstr("vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"stop\"} 0\n"));
  EXPECT_THAT(
      text,
      HasSubstr("vllm:e2e_request_latency_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"0.3\"} 0\n"));
  EXPECT_THAT(
      text,
      HasSubstr("vllm:e2e_request_latency_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"0.5\"} 1\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_prompt_tokens_bucket{model_name=\"m\",engine=\"0\",le=\"20\"} 0\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_prompt_tokens_bucket{model_name=\"m\",engine=\"0\",le=\"50\"} 1\n"));
}

TEST(Metrics, WhatTheStepsTookAndARequestsMeanGap) {
  MetricsObserver metrics;
  for (int step = 0; step < 2; ++step) {
    metrics.on_step({.model = "m",
                     .plan_seconds = 0.25,
                     .run_seconds = 1,
                     .launch_seconds = 0.5,
                     .sample_seconds = 0.125,
                     .wait_seconds = 0.25,
                     .mask_seconds = 0.125,
                     .commit_seconds = 0.5});
  }
  metrics.on_finished(
      {.model = "m", .finish = "stop", .generated_tokens = 5, .ttft_seconds = 0.5, .e2e_seconds = 2.5});
  const std::string text = metrics.render({});
  EXPECT_THAT(text, HasSubstr("mlxs_step_seconds_total{model_name=\"m\",part=\"plan\"} 0.5\n"));
  EXPECT_THAT(text, HasSubstr("mlxs_step_seconds_total{model_name=\"m\",part=\"launch\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("mlxs_step_seconds_total{model_name=\"m\",part=\"mask\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("mlxs_step_duration_seconds_sum{model_name=\"m\"} 3.5\n"));
  EXPECT_THAT(text, HasSubstr("mlxs_step_seconds_total{model_name=\"m\",part=\"publish\"} 1\n"));
  EXPECT_THAT(
      text, HasSubstr("vllm:request_time_per_output_token_seconds_sum{model_name=\"m\",engine=\"0\"} 0.5\n"));
}

TEST(Metrics, APromptThatWasNeverProcessedIsNotCounted) {
  MetricsObserver metrics;
  metrics.on_finished({.model = "m", .finish = "cancelled", .prompt_tokens = 30, .e2e_seconds = 0.01});
  const std::string text = metrics.render({});
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_total{model_name=\"m\",engine=\"0\"} 0\n"));
  EXPECT_THAT(
      text,
      HasSubstr("vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"abort\"} 1\n"));
}

TEST(Metrics, ModelsDoNotMixAndNamesAreEscaped) {
  MetricsObserver metrics;
  metrics.on_first_token("a", 1);
  metrics.on_first_token("quo\"te", 1);
  metrics.on_inter_token("a", 1);
  const std::string text = metrics.render({});
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total{model_name=\"a\",engine=\"0\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total{model_name=\"quo\\\"te\",engine=\"0\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("quo\"te")));
}

TEST(Metrics, NewModelsFromManyThreadsBecomeOneSeriesEach) {
  MetricsObserver metrics;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&metrics] {
      for (int k = 0; k < 1000; ++k) metrics.on_inter_token("model" + std::to_string(k % 10), 0.01);
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string text = metrics.render({});
  for (int k = 0; k < 10; ++k) {
    const std::string line =
        "vllm:generation_tokens_total{model_name=\"model" + std::to_string(k) + "\",engine=\"0\"} 400\n";
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(Metrics, PrefillDecodeAndInferenceAddUp) {
  MetricsObserver metrics;
  RequestRecord record{
      .model = "m", .finish = "stop", .generated_tokens = 3, .ttft_seconds = 1, .e2e_seconds = 3};
  record.part_seconds[static_cast<std::size_t>(RequestPart::kTokenize)] = 0.25;
  record.part_seconds[static_cast<std::size_t>(RequestPart::kQueue)] = 0.25;
  metrics.on_finished(record);
  const std::string text = metrics.render({});
  EXPECT_THAT(text, HasSubstr("vllm:request_prefill_time_seconds_sum{model_name=\"m\",engine=\"0\"} 0.5\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_decode_time_seconds_sum{model_name=\"m\",engine=\"0\"} 2\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_inference_time_seconds_sum{model_name=\"m\",engine=\"0\"} 2.5\n"));
  EXPECT_THAT(text, HasSubstr("mlxs_request_part_seconds_total{model_name=\"m\",part=\"tokenize\"} 0.25\n"));
}

TEST(Metrics, TenantsAreBoundedAndCutAtWholeCharacters) {
  MetricsObserver metrics;
  metrics.on_finished({.model = "m", .user = std::string(63, 'x') + "\u00e9", .finish = "stop"});
  for (int i = 0; i < 1000; ++i) {
    metrics.on_finished({.model = "m", .user = std::to_string(i), .finish = "stop"});
  }
  const std::string text = metrics.render({});
  std::size_t series = 0;
  for (std::size_t at = 0; (at = text.find("\nmlxs_tenant_requests_total{", at + 1)) != text.npos;) ++series;
  EXPECT_EQ(series, 65u);
  EXPECT_THAT(text, HasSubstr("mlxs_tenant_requests_total{tenant=\"(others)\"} 937\n"));
  EXPECT_THAT(text, HasSubstr("{tenant=\"" + std::string(63, 'x') + "\"}"));
}

TEST(Metrics, WhatTheServerCountsIsThere) {
  const MetricsObserver metrics;
  ServerCounters server;
  server.answered(200, 100, 0.5);
  server.answered(429, 10, 0);
  server.answered(0, 0, 0);
  const std::string text = metrics.render({.server = &server});
  EXPECT_THAT(text, HasSubstr("mlxs_http_responses_total{code=\"429\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("mlxs_clients_gone_total 1\n"));
  EXPECT_THAT(text, HasSubstr("mlxs_http_sent_bytes_total 110\n"));
  EXPECT_THAT(text, HasSubstr("mlxs_socket_wait_seconds_total 0.5\n"));
}

TEST(Metrics, APromptsChoicesCountOnceAllOfThemHaveEnded) {
  struct Listener final : RequestListener {
    MetricsObserver metrics;
    void on_choice_ended(const RequestTimeline& ended, const PromptChoices* last_of) override {
      metrics.on_choice_ended(ended, last_of);
    }
    void on_request_done(std::shared_ptr<const RequestTrace>) override {}
  };
  const auto listener = std::make_shared<Listener>();
  const auto trace = std::make_shared<RequestTrace>(TraceStart{.id = "r"}, listener);
  PromptChoices first(3), second(1);
  const auto ended = [](int tokens, int preemptions = 0) {
    RequestTimeline timeline;
    timeline.model = "m";
    timeline.generated_tokens = tokens;
    timeline.preemptions_omitted = preemptions;
    return timeline;
  };
  trace->add(ended(4), &first);
  trace->add(ended(30, 2), &first);
  trace->add(ended(7), &second);
  std::string text = listener->metrics.render({});
  EXPECT_THAT(text, HasSubstr("vllm:request_params_n_count{model_name=\"m\",engine=\"0\"} 1\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_max_num_generation_tokens_sum{model_name=\"m\",engine=\"0\"} 7\n"));
  trace->add(ended(5), &first);
  text = listener->metrics.render({});
  EXPECT_THAT(text, HasSubstr("vllm:request_params_n_sum{model_name=\"m\",engine=\"0\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_params_n_bucket{model_name=\"m\",engine=\"0\",le=\"2\"} 1\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_max_num_generation_tokens_sum{model_name=\"m\",engine=\"0\"} 37\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_num_preemptions_sum{model_name=\"m\",engine=\"0\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_num_preemptions_count{model_name=\"m\",engine=\"0\"} 4\n"));
}

TEST(Metrics, PromptTokensBySourceSumToAllOfThem) {
  MetricsObserver metrics;
  metrics.on_finished({.model = "m",
                       .finish = "length",
                       .prompt_tokens = 30,
                       .cached_prompt_tokens = 16,
                       .ttft_seconds = 0.03,
                       .e2e_seconds = 0.35});
  const std::string text = metrics.render({});
  const std::string of = "vllm:prompt_tokens_by_source_total{model_name=\"m\",engine=\"0\",source=";
  EXPECT_THAT(text, HasSubstr(of + "\"local_compute\"} 14\n"));
  EXPECT_THAT(text, HasSubstr(of + "\"local_cache_hit\"} 16\n"));
  EXPECT_THAT(text, HasSubstr("vllm:prompt_tokens_cached_total{model_name=\"m\",engine=\"0\"} 16\n"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_prefill_kv_computed_tokens_sum{model_name=\"m\",engine=\"0\"} 14\n"));
}

TEST(Metrics, ThroughputFollowsItsWindows) {
  ManualClock clock;
  clock.advance(std::chrono::hours(1));
  MetricsObserver metrics(clock);
  for (int token = 0; token < 40; ++token) metrics.on_inter_token("m", 0.1);
  clock.advance(std::chrono::seconds(2));
  const auto now = metrics.throughput();
  ASSERT_EQ(now.size(), 1u);
  EXPECT_THAT(now[0].tokens_per_second, testing::Each(20));
  clock.advance(std::chrono::seconds(8));
  EXPECT_THAT(metrics.throughput()[0].tokens_per_second, testing::ElementsAre(0, 4, 4));
  EXPECT_THAT(metrics.render({}),
              HasSubstr("mlxs_throughput_tokens_per_second{model_name=\"m\",window=\"60s\"} 4\n"));
}

TEST(Metrics, TheReferenceNamesEveryMetricOnce) {
  const std::string page = metrics_reference();
  EXPECT_THAT(page, HasSubstr("| `vllm:time_to_first_token_seconds` | histogram | `model_name`; `engine` |"));
  EXPECT_THAT(
      page,
      HasSubstr(
          "| `mlxs_blocked_tokens` | gauge | `model_name`; `cause`: slots, pages, window, budget, paused |"));
  EXPECT_EQ(page.find("`mlxs_steps_total`"), page.rfind("`mlxs_steps_total`"));
}

}  // namespace
}  // namespace mlxs
