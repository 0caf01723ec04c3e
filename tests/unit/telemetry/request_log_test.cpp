// The ring of request records, and what a record says.
#include "telemetry/request_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "telemetry/explain.h"
#include "telemetry/request_report.h"

namespace mlxs {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr TimePoint kReceived{std::chrono::hours(1)};

double part_of(const RequestReport& report, std::string_view name) {
  for (const auto& [part, seconds] : request_parts(report)) {
    if (part == name) return seconds;
  }
  return 0;
}

RequestTimeline choice(std::initializer_list<std::pair<RequestPart, double>> parts) {
  RequestTimeline timeline;
  for (const auto& [part, seconds] : parts) {
    timeline.parts[static_cast<std::size_t>(part)] = seconds;
    timeline.total_seconds += seconds;
  }
  timeline.prompt_tokens = 500;
  timeline.generated_tokens = 10;
  return timeline;
}

TEST(RequestLog, KeepsTheLastAndFindsTheNewestOfAnId) {
  RequestLog log(3);
  for (const char* id : {"a", "b", "c", "b"}) log.begin({.id = id, .model = "m"});
  EXPECT_EQ(log.find("a"), nullptr);
  ASSERT_EQ(log.latest(10).size(), 3u);
  EXPECT_EQ(log.latest(10)[0], log.find("b"));
  EXPECT_EQ(log.latest(2)[1]->id(), "c");
}

TEST(RequestLog, KeepingNoneStillGivesATraceToFill) {
  RequestLog log(0);
  const auto trace = log.begin({.id = "a"});
  trace->end({.status = 200});
  EXPECT_EQ(trace->report().end->status, 200);
  EXPECT_EQ(log.find("a"), nullptr);
}

TEST(RequestTrace, IsCompleteWhenTheAnswerAndEveryChoiceEnded) {
  RequestTrace trace({.id = "a", .received = kReceived});
  trace.expect_choice();
  trace.expect_choice();
  trace.add(choice({{RequestPart::kPrefill, 0.5}}));
  trace.end({.at = kReceived + milliseconds(900)});
  EXPECT_FALSE(trace.report().complete());
  EXPECT_EQ(explain(trace.report()), "");
  trace.add(choice({{RequestPart::kDecode, 0.7}}));
  EXPECT_TRUE(trace.report().complete());
}

TEST(RequestReport, PartsAreThoseOfTheLastChoiceAndTheDelivery) {
  RequestTrace trace({.id = "a", .received = kReceived});
  trace.add(choice({{RequestPart::kPrefill, 0.5}}));
  trace.add(choice({{RequestPart::kPrefill, 0.2}, {RequestPart::kDecode, 0.6}}));
  trace.end({.at = kReceived + milliseconds(1000)});
  const RequestReport report = trace.report();
  EXPECT_NEAR(report.e2e_seconds(), 1.0, 1e-9);
  EXPECT_NEAR(part_of(report, "prefill"), 0.2, 1e-9);
  EXPECT_NEAR(part_of(report, "decode"), 0.6, 1e-9);
  EXPECT_NEAR(part_of(report, "deliver"), 0.2, 1e-9);
}

// The client went first: the engine ended the request up to a step later.
TEST(RequestReport, AnEndAfterTheClientsStillSumsUp) {
  RequestTrace trace({.id = "a", .received = kReceived});
  trace.end({.at = kReceived + milliseconds(100), .client_gone = true});
  EXPECT_NEAR(part_of(trace.report(), "prepare"), 0.1, 1e-9);  // as long as nothing else is known
  trace.add(choice({{RequestPart::kDecode, 0.15}}));
  EXPECT_NEAR(trace.report().e2e_seconds(), 0.15, 1e-9);
  EXPECT_NEAR(part_of(trace.report(), "deliver"), 0.0, 1e-9);
}

std::string why(RequestTimeline timeline, double deliver = 0, double socket_wait = 0) {
  RequestReport report{.start = {.received = kReceived}, .choices_expected = 1};
  const auto total = std::chrono::duration<double>(timeline.total_seconds + deliver);
  report.end = TraceEnd{.at = kReceived + std::chrono::duration_cast<Duration>(total),
                        .socket_wait_seconds = socket_wait};
  report.choices.push_back(std::move(timeline));
  return explain(report);
}

TEST(Explain, NamesTheLongestPartAndItsReason) {
  RequestTimeline queued = choice({{RequestPart::kQueue, 6.0}, {RequestPart::kDecode, 2.0}});
  queued.running_ahead = 64;
  queued.waiting_ahead = 12;
  queued.no_slot_seconds = 5.5;
  EXPECT_EQ(why(queued),
            "queue took 75 % of 8.000 s: 64 ran and 12 waited ahead; for 5.50 s every place was taken");

  RequestTimeline prefill = choice({{RequestPart::kPrefill, 1.0}});
  prefill.cached_prompt_tokens = 480;
  prefill.chunks.resize(2);
  EXPECT_THAT(why(prefill), HasSubstr("20 of 500 prompt tokens were computed in 2 chunks; 480 came from"));
  prefill.prefix_miss = "window";
  prefill.prefix_miss_token = 480;
  EXPECT_THAT(why(prefill), HasSubstr("cache, token 480 is known, but what its layers with a window see"));

  RequestTimeline decode = choice({{RequestPart::kDecode, 1.0}});
  decode.itl_p50_seconds = 0.05;
  decode.itl_max_seconds = 0.3;
  decode.slowest_token = 7;
  decode.slowest_prefill_tokens = 512;
  EXPECT_THAT(why(decode), HasSubstr("token 7 took longest, 300.0 ms, in a step with 512 tokens of other"));

  RequestTimeline preempted = choice({{RequestPart::kPreempted, 1.0}});
  preempted.preemptions.resize(2);
  EXPECT_THAT(why(preempted), HasSubstr("lost its KV pages 2 times"));

  EXPECT_THAT(why(choice({{RequestPart::kDecode, 0.1}}), 0.9, 0.8),
              StartsWith("deliver took 90 % of 1.000 s: the client took the answer slowly"));
}

TEST(RequestReport, AReaderLearnsNothingOfOthersButThatTheyWereThere) {
  RequestTimeline timeline = choice({{RequestPart::kQueue, 1.0}});
  timeline.seen_running = {{.request_id = "hers", .user = "alice", .prompt_tokens = 3},
                           {.request_id = "his", .user = "bob", .prompt_tokens = 4}};
  timeline.preemptions.push_back({.for_whom = timeline.seen_running[1]});
  RequestReport report{.start = {.id = "a", .tenant = "alice"}, .end = TraceEnd{}, .choices_expected = 1};
  report.choices.push_back(timeline);

  const std::string alice = "alice";
  const auto hers = report_json(report, &alice);
  EXPECT_EQ(hers["choices"][0]["queue"]["running"][0]["id"], "hers");
  EXPECT_TRUE(hers["choices"][0]["queue"]["running"][1]["id"].is_null());
  EXPECT_TRUE(hers["choices"][0]["preemptions"][0]["for"]["user"].is_null());
  EXPECT_EQ(hers.dump().find("bob"), std::string::npos);

  const auto all = report_json(report, nullptr);
  EXPECT_EQ(all["choices"][0]["queue"]["running"][1]["id"], "his");
}

TEST(RequestReport, TheHeaderSumsUpToTheMomentOfWriting) {
  RequestTrace trace({.id = "a", .received = kReceived});
  trace.add(choice({{RequestPart::kPrefill, 0.25}, {RequestPart::kDecode, 0.5}}));
  EXPECT_EQ(timing_header(trace.report(), kReceived + milliseconds(1000)),
            "total;dur=1000.000, prefill;dur=250.000, decode;dur=500.000, deliver;dur=250.000");
}

}  // namespace
}  // namespace mlxs
