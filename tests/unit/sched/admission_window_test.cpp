// The admission window: who starts at once, how long the others are held, how the window follows the load and
// the batch size the speed.
#include "sched/admission_window.h"

#include <gtest/gtest.h>

#include <random>

#include "unit/sched/driver.h"

namespace mlxs {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

TEST(AdaptiveWindow, SettlesAtTheShortestUnderLowLoad) {
  AdaptiveWindow window({});
  EXPECT_EQ(window.window_ms(), 1.0);
  EXPECT_EQ(window.update(1, {}), 1.0);
  EXPECT_EQ(window.update(1, {}), 1.0);
  EXPECT_EQ(window.update(1, {}), 0.75) << "three samples that agree";
  EXPECT_EQ(window.transitions(), 1u);
  EXPECT_EQ(window.history().back().reason, "low load");
}

TEST(AdaptiveWindow, WidensUnderLoadAndComesBack) {
  AdaptiveWindow window({});
  for (int i = 0; i < 10; ++i) window.update(20, {});
  EXPECT_EQ(window.window_ms(), 2.0);
  for (int i = 0; i < 20; ++i) window.update(0, {});
  EXPECT_EQ(window.window_ms(), 0.75);
  EXPECT_LE(window.transitions(), 3u) << "at most once through the middle";
}

// The average is smoothed across a depth of zero: one empty moment does not look like a new start.
TEST(AdaptiveWindow, AZeroDoesNotRestartTheAverage) {
  AdaptiveWindow window({});
  window.update(0, {});
  window.update(8, {});
  EXPECT_DOUBLE_EQ(window.ema(), 4);
}

TEST(AdaptiveWindow, HardlyMovesWhileTheLoadOscillates) {
  AdaptiveWindow window({});
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) window.update(i % 2 == 0 ? 2 : static_cast<int>(6 + random() % 3), {});
  EXPECT_LT(static_cast<double>(window.transitions()) / static_cast<double>(window.updates()), 0.1);
  for (int i = 0; i < 2000; ++i) window.update(i / 10 % 2 == 0 ? 1 : 20, {});
  EXPECT_LE(window.history().size(), AdaptiveWindow::kHistory);
}

TEST(AdaptiveWindow, BetweenMediumAndHighLoadItStaysAsItIs) {
  AdaptiveWindow window({.medium_threshold = 5, .high_threshold = 8, .ema_alpha = 0.9});
  for (int i = 0; i < 20; ++i) window.update(7, {});
  EXPECT_EQ(window.window_ms(), 1.0) << "medium, as at the start";
  for (int i = 0; i < 20; ++i) window.update(9, {});
  EXPECT_EQ(window.window_ms(), 2.0);
  for (int i = 0; i < 20; ++i) window.update(7, {});
  EXPECT_EQ(window.window_ms(), 2.0) << "high, as before";
  for (int i = 0; i < 20; ++i) window.update(0, {});
  for (int i = 0; i < 20; ++i) window.update(7, {});
  EXPECT_EQ(window.window_ms(), 1.0) << "more than low load in any case";
}

TEST(AdmissionWindow, SaysItsLastTransitionsAndPercentiles) {
  AdmissionWindow window({.enabled = true});
  TimePoint now{};
  for (int i = 0; i < 100; ++i, now += milliseconds(50)) {
    while (!window.open(now, i < 50 ? 20 : 1, 1, false)) now = window.opens_at();
    window.step_took(i < 95 ? 0.010 : 0.020);
  }
  const AdmissionWindowStats stats = window.stats();
  ASSERT_GE(stats.transitions, 2u);
  EXPECT_EQ(stats.recent_transitions[0].reason, "low load");
  EXPECT_EQ(stats.recent_transitions[0].window_ms, 0.75);
  EXPECT_LT(stats.recent_transitions[0].seconds_ago, stats.recent_transitions[1].seconds_ago);
  EXPECT_EQ(stats.recent_transitions[stats.transitions].reason, "");
  EXPECT_EQ(stats.p50_ms, 10);
  EXPECT_EQ(stats.p99_ms, 20);
  EXPECT_EQ(stats.min_ms, 10);
  EXPECT_EQ(stats.max_ms, 20);
  EXPECT_NEAR(stats.mean_ms, 10.5, 1e-9);
  EXPECT_EQ(stats.steps, 100u);
}

TEST(AdmissionWindow, IsOpenWhileItIsOff) {
  AdmissionWindow window({});
  EXPECT_TRUE(window.open({}, 2, 0, false));
  EXPECT_EQ(window.stats().normal, 0u) << "and counts nothing";
}

TEST(AdmissionWindow, HoldsUntilTheBatchIsFullOrTheWindowOver) {
  AdmissionWindow window({.enabled = true, .batch_size = 4});
  EXPECT_FALSE(window.open({}, 2, 0, false));
  EXPECT_EQ(window.opens_at(), TimePoint{} + milliseconds(1));
  EXPECT_FALSE(window.open(TimePoint{} + microseconds(900), 3, 0, false));
  EXPECT_TRUE(window.open(TimePoint{} + microseconds(950), 4, 0, false)) << "full";
  EXPECT_FALSE(window.open(TimePoint{} + milliseconds(5), 2, 0, false));
  EXPECT_TRUE(window.open(TimePoint{} + milliseconds(6), 2, 0, false)) << "over";
  EXPECT_EQ(window.stats().normal, 2u);
}

TEST(AdmissionWindow, WaitingForAStepCounts) {
  AdmissionWindow window({.enabled = true});
  const TimePoint arrived{}, now = arrived + milliseconds(8);
  EXPECT_TRUE(window.open(now, 2, 5, false, arrived)) << "it would start a whole step later else";
  EXPECT_FALSE(window.open(now, 2, 5, false, now - microseconds(100)));
  EXPECT_EQ(window.opens_at(), now + microseconds(900));
}

TEST(AdmissionWindow, AnUrgentRequestOpensIt) {
  AdmissionWindow window({.enabled = true});
  EXPECT_FALSE(window.open({}, 2, 0, false));
  EXPECT_TRUE(window.open(TimePoint{} + microseconds(1), 3, 0, true));
}

TEST(AdmissionWindow, OneAfterTheOtherTakesTheFastPathAndManyDoNot) {
  const auto rate = [](int at_once) {
    AdmissionWindow window({.enabled = true});
    TimePoint now{};
    for (int i = 0; i < 100; ++i, now += milliseconds(50)) {
      while (!window.open(now, at_once, 0, false)) now = window.opens_at();
    }
    const AdmissionWindowStats stats = window.stats();
    return static_cast<double>(stats.fast_path) / static_cast<double>(stats.fast_path + stats.normal);
  };
  EXPECT_GT(rate(1), 0.8);
  EXPECT_LT(rate(5), 0.5);
}

TEST(BatchSize, ShrinksThenHalvesTheWindowAndRecovers) {
  BatchSize batch({.batch_size = 4, .p99_threshold_ms = 100});
  for (int i = 0; i < 1000; ++i) batch.add(500);
  EXPECT_EQ(batch.size(), 1);
  EXPECT_EQ(batch.window_factor(), 0.5);
  EXPECT_EQ(batch.degradations(), 3u);
  for (int i = 0; i < 2000; ++i) batch.add(10);
  EXPECT_EQ(batch.window_factor(), 1);
  EXPECT_EQ(batch.size(), 4);
}

TEST(BatchSize, TunesItselfWithinItsBounds) {
  BatchSize batch({.auto_tune = {.enabled = true}});
  for (int i = 0; i < 1000; ++i) batch.add(20);
  EXPECT_EQ(batch.size(), 8);
  batch.add(std::nan(""));
  for (int i = 0; i < 2000; ++i) batch.add(150);
  EXPECT_EQ(batch.size(), 2);
  EXPECT_EQ(batch.degradations(), 0u) << "150 ms is no emergency";
  for (int i = 0; i < 2000; ++i) batch.add(90);
  EXPECT_EQ(batch.size(), 2) << "within the tolerance nothing moves";
}

TEST(BatchSize, AnEmergencyTakesTheLeastAtOnce) {
  BatchSize batch({.auto_tune = {.enabled = true}});
  for (int i = 0; i < 300; ++i) batch.add(20);
  for (int i = 0; i < 20; ++i) batch.add(1000);
  EXPECT_EQ(batch.size(), 2);
  EXPECT_EQ(batch.degradations(), 1u);
}

// In the scheduler: who waits is held, who runs is not, and the plan says when to ask again.
TEST(AdmissionWindow, TheSchedulerHoldsArrivalsAndNeverARunningAnswer) {
  Driver driver({.window = {.enabled = true, .batch_size = 3}}, {.num_pages = 64});
  driver.add(prompt_of(10, 1), 5);
  ASSERT_TRUE(driver.step()) << "alone: at once";
  driver.add(prompt_of(10, 2), 5);
  ASSERT_TRUE(driver.step());
  EXPECT_EQ(driver.plan().decode_rows, 1);
  EXPECT_TRUE(driver.plan().admitted.empty());
  ASSERT_TRUE(driver.plan().held_until);
  driver.now() = *driver.plan().held_until;
  ASSERT_TRUE(driver.step());
  EXPECT_EQ(driver.plan().admitted.size(), 1u);
  driver.drain();
  driver.add(prompt_of(10, 3), 5);
  driver.add(prompt_of(10, 4), 5);
  EXPECT_FALSE(driver.step()) << "nothing runs, and two wait for a third";
  EXPECT_TRUE(driver.plan().held_until);
  driver.add(prompt_of(10, 5), 5);
  EXPECT_TRUE(driver.step());
  driver.drain();
  EXPECT_EQ(driver.done().size(), 5u);
}

}  // namespace
}  // namespace mlxs
