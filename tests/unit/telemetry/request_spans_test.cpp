// A request's spans: they nest, they follow one another, and they say what happened.
#include "telemetry/request_spans.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "telemetry/otlp_json.h"
#include "telemetry/request_publisher.h"

namespace mlxs {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;

constexpr TimePoint kReceived{std::chrono::hours(1)};
constexpr std::int64_t kUnix = 1'700'000'000'000'000'000;

RequestTimeline answered() {
  RequestTimeline c;
  c.finish = "length";
  c.prompt_tokens = 100;
  c.cached_prompt_tokens = 32;
  c.generated_tokens = 5;
  const auto set = [&c](RequestPart part, double seconds) {
    c.parts[static_cast<std::size_t>(part)] = seconds;
  };
  set(RequestPart::kPrepare, 0.01);
  set(RequestPart::kTokenize, 0.02);
  set(RequestPart::kQueue, 0.07);
  set(RequestPart::kBudget, 0.05);
  set(RequestPart::kPrefill, 0.15);
  set(RequestPart::kDecode, 0.4);
  c.ttft_seconds = 0.3;
  c.total_seconds = 0.7;
  c.chunks = {{.at_seconds = 0.1, .seconds = 0.1, .step = 7, .start = 32, .tokens = 40},
              {.at_seconds = 0.25, .seconds = 0.05, .step = 8, .start = 72, .tokens = 28}};
  c.preemptions = {{.at_seconds = 0.5, .for_whom = {.request_id = "other"}, .lost_tokens = 102}};
  return c;
}

RequestReport report_of(std::vector<RequestTimeline> choices, int status = 200) {
  RequestReport report;
  report.start = {.id = "req-1",
                  .method = "POST",
                  .path = "/v1/chat/completions",
                  .model = "m",
                  .received = kReceived,
                  .received_unix_ns = kUnix,
                  .context = new_trace(),
                  .facts = {.operation = "chat", .stream = true}};
  report.choices_expected = choices.size();
  report.choices = std::move(choices);
  report.end = TraceEnd{.at = kReceived + milliseconds(750), .status = status, .bytes = 99};
  return report;
}

std::vector<std::string> names(const std::vector<Span>& spans) {
  std::vector<std::string> out;
  for (const Span& span : spans) out.push_back(span.name);
  return out;
}

void expect_nested(const std::vector<Span>& spans) {
  for (const Span& span : spans) {
    EXPECT_LE(span.start_ns, span.end_ns) << span.name;
    if (span.server) continue;
    const auto parent = std::ranges::find(spans, span.parent, &Span::id);
    ASSERT_NE(parent, spans.end()) << span.name;
    EXPECT_GE(span.start_ns, parent->start_ns) << span.name;
    EXPECT_LE(span.end_ns, parent->end_ns) << span.name;
  }
}

TEST(RequestSpans, OfOneAnswer) {
  const RequestReport report = report_of({answered()});
  const std::vector<Span> spans = request_spans(report);
  EXPECT_THAT(names(spans), ElementsAre("chat m", "admit", "tokenize", "queue", "prefill", "prefill chunk",
                                        "prefill chunk", "decode", "stream"));
  expect_nested(spans);
  EXPECT_TRUE(spans[0].server);
  EXPECT_EQ(spans[0].id, report.start.context.span_id);
  EXPECT_EQ(spans[0].start_ns, kUnix);
  EXPECT_NEAR(static_cast<double>(spans[0].end_ns - kUnix), 0.75e9, 10);
  for (std::size_t i = 2; i <= 4; ++i)
    EXPECT_NEAR(static_cast<double>(spans[i].start_ns - spans[i - 1].end_ns), 0, 10);
  EXPECT_NEAR(static_cast<double>(spans[4].end_ns - kUnix), 0.3e9, 10);  // the first token
  ASSERT_EQ(spans[7].events.size(), 1u);
  EXPECT_EQ(spans[7].events[0].name, "preempted");
  EXPECT_TRUE(spans[4].events.empty());
}

TEST(RequestSpans, EachOfSeveralChoicesHasItsOwn) {
  const std::vector<Span> spans = request_spans(report_of({answered(), answered()}));
  expect_nested(spans);
  EXPECT_EQ(std::ranges::count(spans, "decode", &Span::name), 2);
  EXPECT_EQ(spans[1].name, "choice 0");
  EXPECT_EQ(spans[1].parent, spans[0].id);
}

TEST(RequestSpans, OneThatNeverRanHasOnlyWhatItDid) {
  RequestTimeline refused;
  refused.finish = "error";
  refused.error = "the queue is full";
  refused.parts[static_cast<std::size_t>(RequestPart::kQueue)] = 0.01;
  refused.total_seconds = 0.01;
  const std::vector<Span> spans = request_spans(report_of({refused}, 429));
  EXPECT_THAT(names(spans), ElementsAre("chat m", "queue"));
  EXPECT_EQ(spans[0].error, "the queue is full");
}

TEST(OtlpJson, IsWhatTheSchemaSays) {
  const RequestReport report = report_of({answered()});
  const std::vector<std::string> batch{otlp_spans(report.start.context, request_spans(report))};
  const auto body = nlohmann::json::parse(otlp_traces_body(otlp_resource({}, "1.2", "i"), "1.2", batch));
  const auto& resource = body["resourceSpans"][0];
  EXPECT_EQ(resource["resource"]["attributes"][0]["key"], "service.name");
  EXPECT_EQ(resource["resource"]["attributes"][0]["value"]["stringValue"], "mlx-serving");
  const auto& spans = resource["scopeSpans"][0]["spans"];
  ASSERT_EQ(spans.size(), 9u);
  EXPECT_EQ(spans[0]["traceId"], hex(report.start.context.trace_id));
  EXPECT_EQ(spans[0]["kind"], 2);
  EXPECT_FALSE(spans[0].contains("parentSpanId"));
  EXPECT_EQ(spans[0]["startTimeUnixNano"], std::to_string(kUnix));
  EXPECT_EQ(spans[1]["parentSpanId"], spans[0]["spanId"]);
}

TEST(OtlpJson, HistogramsAreNotCumulativeOverBuckets) {
  prometheus::MetricFamily family{"a_seconds", "help", prometheus::MetricType::Histogram, {}};
  prometheus::ClientMetric metric;
  metric.label = {{"model_name", "m"}};
  metric.histogram.bucket = {{2, 0.5}, {5, 1.0}};
  metric.histogram.sample_count = 6;
  metric.histogram.sample_sum = 4.5;
  family.metric.push_back(metric);
  const auto body = nlohmann::json::parse(otlp_metrics_body("{}", "1", {family}, 5, 6));
  const auto& out = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0];
  const auto& point = out["histogram"]["dataPoints"][0];
  EXPECT_EQ(out["unit"], "s");
  EXPECT_EQ(out["histogram"]["aggregationTemporality"], 2);
  EXPECT_EQ(point["bucketCounts"], nlohmann::json({"2", "3", "1"}));
  EXPECT_EQ(point["explicitBounds"], nlohmann::json({0.5, 1.0}));
  EXPECT_EQ(point["count"], "6");
  EXPECT_EQ(point["startTimeUnixNano"], "5");
}

TEST(Sampling, FailuresAndMissedTargetsAreAlwaysKept) {
  OtelOptions options;
  options.sample_share = 0;
  EXPECT_FALSE(is_sampled(options, report_of({answered()})));
  EXPECT_TRUE(is_sampled(options, report_of({answered()}, 500)));
  EXPECT_TRUE(is_sampled(options, report_of({}, 429)));
  EXPECT_FALSE(is_sampled(options, report_of({}, 404)));  // anybody can ask for what is not there
  RequestReport late = report_of({answered()});
  late.start.facts.slo_ttft_ms = 299;
  EXPECT_TRUE(is_sampled(options, late));
  late.start.facts.slo_ttft_ms = 301;
  EXPECT_FALSE(is_sampled(options, late));
  late.start.facts.slo_tpot_ms = 99;  // it took 100
  EXPECT_TRUE(is_sampled(options, late));
  options.keep_failures = false;
  EXPECT_FALSE(is_sampled(options, late));
}

TEST(Sampling, ACallersDecisionIsFollowed) {
  OtelOptions options;
  options.sample_share = 0;
  RequestReport report = report_of({answered()});
  report.start.context = *parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "");
  EXPECT_TRUE(is_sampled(options, report));
  options.follow_parent = false;
  EXPECT_FALSE(is_sampled(options, report));
  options = {};
  options.sample_share = 1;
  report.start.context.sampled = false;
  EXPECT_FALSE(is_sampled(options, report));
}

}  // namespace
}  // namespace mlxs
