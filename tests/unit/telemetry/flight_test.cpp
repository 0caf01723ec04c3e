// The flight recorder: what it keeps, what a dump of it says, and the trace made of that.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "mlxs/error.h"
#include "support/temp_dir.h"
#include "telemetry/flight_recorder.h"
#include "telemetry/flight_trace.h"
#include "telemetry/stall_watch.h"

namespace mlxs {
namespace {

using std::chrono::milliseconds;
constexpr TimePoint kStart{std::chrono::hours(1)};

void record(FlightRecorder& recorder, std::uint64_t step, std::vector<StepSpanRecord> spans) {
  recorder.on_step({.model = "m",
                    .step = step,
                    .started = kStart + milliseconds(10 * step),
                    .prefill_tokens = spans.size() > 1 ? spans.back().tokens : 0,
                    .decode_rows = 1,
                    .plan_seconds = 0.001,
                    .run_seconds = 0.005,
                    .launch_seconds = 0.002,
                    .sample_seconds = 0.001,
                    .wait_seconds = 0.002,
                    .commit_seconds = 0.001,
                    .running = 2,
                    .blocked_tokens = {0, 7, 0, 0, 0},
                    .spans = spans});
}

void event(FlightRecorder& recorder, const char* id, std::uint64_t number, RequestEvent::Kind kind,
           int at_ms) {
  recorder.on_request(
      {.model = "m", .request_id = id, .request = number, .kind = kind, .at = kStart + milliseconds(at_ms)});
}

TEST(FlightRecorder, KeepsTheLastStepsWithTheirSpans) {
  FlightRecorder recorder({.steps = 4, .directory = {}}, "1.0");
  for (std::uint64_t step = 1; step <= 10; ++step) {
    record(recorder, step,
           {{.request = 1, .start = static_cast<int>(step), .tokens = 1}, {.request = step, .tokens = 9}});
  }
  const FlightDump dump = read_flight(recorder.snapshot("why"));
  EXPECT_EQ(recorder.steps_recorded(), 10u);
  EXPECT_STREQ(dump.header.reason, "why");
  ASSERT_EQ(dump.steps.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(dump.steps[i].step, 7 + i);
    ASSERT_EQ(dump.spans[i].size(), 2u);
    EXPECT_EQ(dump.spans[i][1].request, 7 + i);
  }
}

TEST(FlightRecorder, SpansThatWereOverwrittenAreMissingNotWrong) {
  FlightRecorder recorder({.steps = 4, .directory = {}}, "1.0");  // 128 spans
  record(recorder, 1, std::vector<StepSpanRecord>(10, {.request = 1}));
  record(recorder, 2, std::vector<StepSpanRecord>(125, {.request = 2}));
  const FlightDump dump = read_flight(recorder.snapshot("x"));
  ASSERT_EQ(dump.steps.size(), 2u);
  EXPECT_TRUE(dump.spans[0].empty());
  EXPECT_EQ(dump.spans[1].size(), 125u);
}

TEST(FlightRecorder, ADumpBesideAWriterHasWholeStepsOnly) {
  FlightRecorder recorder({.steps = 64, .directory = {}}, "1.0");
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (std::uint64_t step = 1; !stop; ++step) record(recorder, step, {{.request = step, .tokens = 1}});
  });
  while (recorder.steps_recorded() < 1000) std::this_thread::yield();
  for (int i = 0; i < 20; ++i) {
    const FlightDump dump = read_flight(recorder.snapshot("x"));
    for (const FlightStep& step : dump.steps) EXPECT_EQ(step.step, step.sequence);
  }
  stop = true;
  writer.join();
}

TEST(FlightRecorder, WritesFilesIntoItsFolder) {
  const test::TempDir folder;
  FlightRecorder recorder({.steps = 4, .directory = folder.path() / "deep" / "er"}, "1.0");
  record(recorder, 1, {{.request = 1, .tokens = 1}});
  const auto first = recorder.dump("asked"), second = recorder.dump("stall");
  EXPECT_NE(first, second);
  std::ifstream file(first, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(read_flight(bytes).steps.size(), 1u);
  std::ofstream(folder.path() / "plain") << "x";
  FlightRecorder blocked({.steps = 4, .directory = folder.path() / "plain"}, "1.0");
  EXPECT_THROW(blocked.dump("asked"), Error);
}

TEST(FlightRecorderDeathTest, ACrashLeavesADump) {
  const test::TempDir folder;
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        FlightRecorder recorder({.steps = 4, .directory = folder.path()}, "1.0");
        record(recorder, 1, {{.request = 1, .tokens = 1}});
        recorder.dump_on_crash();
        std::abort();
      },
      "crashed; the last steps are in .*-crash.bin");
}

TEST(ChromeTrace, LanesNestAndSumUp) {
  FlightRecorder recorder({.steps = 100, .directory = {}}, "1.0");
  event(recorder, "req-a", 1, RequestEvent::Kind::kQueued, 5);
  event(recorder, "req-a", 1, RequestEvent::Kind::kAdmitted, 10);
  for (std::uint64_t step = 1; step <= 3; ++step)
    record(recorder, step, {{.request = 1, .start = 0, .tokens = 4}});
  event(recorder, "req-a", 1, RequestEvent::Kind::kEnded, 36);
  const auto trace = nlohmann::json::parse(chrome_trace(read_flight(recorder.snapshot("x"))));
  std::map<std::pair<int, int>, std::vector<nlohmann::json>> lanes;
  double steps = 0, shares = 0;
  for (const auto& e : trace["traceEvents"]) {
    if (e["ph"] != "X") continue;
    lanes[{e["pid"], e["tid"]}].push_back(e);
    if (e["name"].get<std::string>().starts_with("step ")) steps += e["dur"].get<double>();
    if (e["name"] == "decode") shares += e["dur"].get<double>();
  }
  EXPECT_NEAR(steps, 3 * 7000, 1e-3);   // plan, run, publish
  EXPECT_NEAR(shares, 3 * 5000, 1e-3);  // run
  ASSERT_EQ(lanes.size(), 2u);          // the engine's and the request's
  for (const auto& [lane, events] : lanes) {
    for (std::size_t i = 0; i < events.size(); ++i) {
      for (std::size_t k = i + 1; k < events.size(); ++k) {
        const double a = events[i]["ts"], b = a + events[i]["dur"].get<double>();
        const double c = events[k]["ts"], d = c + events[k]["dur"].get<double>();
        constexpr double kEnough = 1e-6;
        const bool apart = b <= c + kEnough || d <= a + kEnough;
        const bool inside = (a <= c + kEnough && d <= b + kEnough) || (c <= a + kEnough && b <= d + kEnough);
        EXPECT_TRUE(apart || inside) << events[i] << " " << events[k];
      }
    }
  }
}

TEST(ChromeTrace, OtherBytesAreRefused) {
  FlightRecorder recorder({.steps = 4, .directory = {}}, "1.0");
  record(recorder, 1, {{.request = 1, .tokens = 1}});
  const std::string good = recorder.snapshot("x");
  for (std::size_t size = 0; size < good.size(); size += 7)
    EXPECT_THROW(read_flight(good.substr(0, size)), Error);
  std::string bad = good;
  bad[0] = 'x';
  EXPECT_THROW(read_flight(bad), Error);
  for (std::size_t at = 8; at < good.size(); ++at) {  // damaged: refused or read, never worse
    bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0xff);
    try {
      chrome_trace(read_flight(bad));
    } catch (const Error&) {
    }
  }
}

TEST(StallDetector, TellsOnceOfEachStall) {
  StallDetector detector(std::chrono::seconds(10));
  const auto at = [](int s) { return kStart + std::chrono::seconds(s); };
  EXPECT_FALSE(detector.tick(at(0), {.steps = 5, .busy = true}));
  EXPECT_FALSE(detector.tick(at(10), {.steps = 5, .busy = true}));
  EXPECT_EQ(detector.tick(at(11), {.steps = 5, .busy = true}), std::chrono::seconds(11));
  EXPECT_FALSE(detector.tick(at(30), {.steps = 5, .busy = true}));
  EXPECT_FALSE(detector.tick(at(31), {.steps = 6, .busy = true}));  // it goes on
  EXPECT_TRUE(detector.tick(at(42), {.steps = 6, .busy = true}));
  EXPECT_FALSE(detector.tick(at(43), {.steps = 6, .busy = false}));
  EXPECT_FALSE(detector.tick(at(100), {.steps = 6, .busy = false}));  // nothing to do is no stall
  EXPECT_FALSE(detector.tick(at(109), {.steps = 6, .busy = true}));
}

}  // namespace
}  // namespace mlxs
