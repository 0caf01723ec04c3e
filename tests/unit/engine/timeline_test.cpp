// The parts of a request's time by a clock that the test moves: each millisecond lands in one part.
#include "engine/timeline.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace mlxs {
namespace {

using std::chrono::milliseconds;

class TimelineTest : public ::testing::Test {
 protected:
  TimelineTest() { clock_.advance(std::chrono::hours(1)); }  // a zero time point means "never"

  TimePoint after(int ms) {
    clock_.advance(milliseconds(ms));
    return clock_.now();
  }
  StepShare step(int ms, int prefill_tokens = 0, int total_tokens = 1) {
    const TimePoint started = clock_.now();
    return {.step = ++steps_,
            .started = started,
            .ended = after(ms),
            .prefill_tokens = prefill_tokens,
            .total_tokens = total_tokens};
  }
  // A request that is queued at 60 ms.
  TimelineRecorder queued(int tokenized_before_ms = 0) {
    TimelineRecorder recorder(clock_.now());
    recorder.tokenizing(after(10), milliseconds(tokenized_before_ms));
    recorder.compiling_grammar(after(20));
    recorder.submitted(after(30));
    queue_.advance(clock_.now());
    recorder.queued(queue_, 2, 5, {{.request_id = "a", .user = "alice", .prompt_tokens = 7}});
    return recorder;
  }
  static int part(const RequestTimeline& record, RequestPart which) {
    return static_cast<int>(std::lround(record.parts[static_cast<std::size_t>(which)] * 1e3));
  }
  static void expect_sum(const RequestTimeline& record) {
    EXPECT_NEAR(std::accumulate(record.parts.begin(), record.parts.end(), 0.0), record.total_seconds, 1e-9);
    for (const double seconds : record.parts) EXPECT_GE(seconds, 0.0);
  }

  ManualClock clock_;
  QueueClock queue_;
  std::uint64_t steps_ = 0;
};

TEST_F(TimelineTest, APlainRequestGoesThroughItsParts) {
  TimelineRecorder recorder = queued();
  recorder.admitted(after(40), queue_);
  recorder.prefilled(step(100, 500, 512), 32, 300);
  after(7);  // a step in which others' prompts took the budget
  recorder.prefilled(step(50, 200, 212), 332, 100);
  recorder.sampled({.step = 2, .ended = clock_.now()});
  for (const int ms : {10, 12, 80, 11}) recorder.sampled(step(ms, ms == 80 ? 400 : 0));
  const RequestTimeline record = recorder.finish(clock_.now());

  expect_sum(record);
  EXPECT_EQ(part(record, RequestPart::kPrepare), 10);
  EXPECT_EQ(part(record, RequestPart::kTokenize), 20);
  EXPECT_EQ(part(record, RequestPart::kGrammar), 30);
  EXPECT_EQ(part(record, RequestPart::kQueue), 40);
  EXPECT_EQ(part(record, RequestPart::kBudget), 7);
  EXPECT_EQ(part(record, RequestPart::kPrefill), 150);
  EXPECT_EQ(part(record, RequestPart::kDecode), 113);
  EXPECT_NEAR(record.ttft_seconds, 0.257, 1e-9);
  EXPECT_EQ(record.generated_tokens, 5);

  EXPECT_EQ(record.running_ahead, 2);
  EXPECT_EQ(record.waiting_ahead, 5);
  ASSERT_EQ(record.seen_running.size(), 1u);
  EXPECT_EQ(record.seen_running[0].user, "alice");

  ASSERT_EQ(record.chunks.size(), 2u);
  EXPECT_NEAR(record.chunks[0].at_seconds, 0.1, 1e-9);
  EXPECT_EQ(record.chunks[0].start, 32);
  EXPECT_EQ(record.chunks[0].other_tokens, 212);
  EXPECT_NEAR(record.chunks[1].seconds, 0.05, 1e-9);

  EXPECT_NEAR(record.itl_p50_seconds, 0.011, 1e-9);
  EXPECT_NEAR(record.itl_max_seconds, 0.080, 1e-9);
  EXPECT_EQ(record.slowest_token, 4);
  EXPECT_EQ(record.slowest_prefill_tokens, 400);
}

TEST_F(TimelineTest, TimeSpentTokenizingBeforeIsMovedThere) {
  TimelineRecorder recorder = queued(4);
  const RequestTimeline record = recorder.finish(after(1));
  expect_sum(record);
  EXPECT_EQ(part(record, RequestPart::kPrepare), 6);
  EXPECT_EQ(part(record, RequestPart::kTokenize), 24);
}

TEST_F(TimelineTest, WhatTheQueueLackedCountsOnlyWhileTheRequestWaited) {
  queue_.advance(clock_.now(), QueueBlock::kSlots);
  after(1000);
  TimelineRecorder recorder = queued();
  queue_.advance(after(5), QueueBlock::kPages);
  queue_.advance(after(8), QueueBlock::kNothing);
  recorder.admitted(clock_.now(), queue_);
  queue_.advance(after(3), QueueBlock::kSlots);
  queue_.advance(after(900));
  const RequestTimeline record = recorder.finish(clock_.now());
  expect_sum(record);
  EXPECT_EQ(part(record, RequestPart::kQueue), 13);
  EXPECT_NEAR(record.no_page_seconds, 0.008, 1e-9);
  EXPECT_NEAR(record.no_slot_seconds, 0.005, 1e-9);
}

TEST_F(TimelineTest, APreemptionHasItsOwnPartsAndSaysForWhom) {
  TimelineRecorder recorder = queued();
  recorder.admitted(clock_.now(), queue_);
  recorder.prefilled(step(10), 0, 16);
  recorder.sampled({.step = 1, .ended = clock_.now()});
  recorder.sampled(step(5));
  recorder.preempted(after(1), {.request_id = "b", .user = "bob", .prompt_tokens = 99}, 18);
  recorder.admitted(after(200), queue_);
  recorder.prefilled(step(15), 0, 10);
  recorder.prefilled(step(5), 10, 8);
  recorder.sampled({.step = 9, .ended = clock_.now()});
  const RequestTimeline record = recorder.finish(after(2));
  expect_sum(record);
  EXPECT_EQ(part(record, RequestPart::kPrefill), 10);
  EXPECT_EQ(part(record, RequestPart::kPreempted), 200);
  EXPECT_EQ(part(record, RequestPart::kRecompute), 20);
  EXPECT_EQ(part(record, RequestPart::kDecode), 8);
  ASSERT_EQ(record.preemptions.size(), 1u);
  EXPECT_EQ(record.preemptions[0].for_whom.request_id, "b");
  EXPECT_EQ(record.preemptions[0].lost_tokens, 18);
  EXPECT_EQ(record.chunks.size(), 1u);
  EXPECT_NEAR(record.itl_max_seconds, 0.221, 1e-9);
}

TEST_F(TimelineTest, ASlowReaderIsItsOwnPartEvenWhileItLosesItsPages) {
  TimelineRecorder recorder = queued();
  recorder.admitted(clock_.now(), queue_);
  recorder.prefilled(step(10), 0, 16);
  recorder.sampled({.step = 1, .ended = clock_.now()});
  recorder.paused(clock_.now());
  recorder.preempted(after(30), {}, 17);
  recorder.resumed(after(20));
  recorder.admitted(after(4), queue_);
  recorder.prefilled(step(6), 0, 17);
  recorder.sampled({.step = 2, .ended = clock_.now()});
  recorder.resumed(after(0));  // told twice: changes nothing
  const RequestTimeline record = recorder.finish(after(3));
  expect_sum(record);
  EXPECT_EQ(part(record, RequestPart::kPaused), 50);
  EXPECT_EQ(part(record, RequestPart::kPreempted), 4);
  EXPECT_EQ(part(record, RequestPart::kRecompute), 6);
  EXPECT_EQ(part(record, RequestPart::kDecode), 3);
  EXPECT_EQ(record.pauses, 1);
}

TEST_F(TimelineTest, KeepsTheFirstChunksAndCountsTheRest) {
  TimelineRecorder recorder = queued();
  recorder.admitted(clock_.now(), queue_);
  for (int i = 0; i < 100; ++i) recorder.prefilled(step(1), i, 1);
  const RequestTimeline record = recorder.finish(clock_.now());
  expect_sum(record);
  EXPECT_EQ(record.chunks.size(), TimelineRecorder::kMaxChunks);
  EXPECT_EQ(record.chunks_omitted, 36);
  EXPECT_EQ(part(record, RequestPart::kPrefill), 100);
}

}  // namespace
}  // namespace mlxs
