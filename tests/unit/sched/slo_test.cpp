// Targets: what a step costs is learnt, what cannot make its TTFT is refused before any work, what might miss
// it is moved up, and the outcomes are counted. Time is a number here: a step takes what `seconds_of` says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "sched/scheduler.h"
#include "sched/step_cost.h"
#include "unit/sched/driver.h"

namespace mlxs {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::UnorderedElementsAre;

constexpr double kFixed = 0.01, kToken = 0.001;  // seconds: 10 ms a step, 1 ms a token

class Slo : public testing::Test {
 protected:
  void make(SchedulerConfig config, std::int32_t pages = 4096) {
    pool_ = std::make_unique<KvPool>(KvPoolConfig{.num_pages = pages, .prefix_cache = prefix_cache_});
    scheduler_ = std::make_unique<Scheduler>(config, *pool_);
  }
  void TearDown() override {
    if (scheduler_) scheduler_->check();
  }

  // A target of 0 ms is none. The key makes the prompt its own.
  std::optional<Refusal> add(RequestId id, std::size_t prompt, std::int32_t answer, int ttft_ms = 0,
                             Priority priority = Priority::kNormal, int tpot_ms = 0) {
    return scheduler_->add({.id = id,
                            .prompt = prompt_of(prompt, static_cast<TokenId>(id)),
                            .max_new_tokens = answer,
                            .priority = priority,
                            .arrival = now_,
                            .slo = {.ttft = milliseconds(ttft_ms), .tpot = milliseconds(tpot_ms)}});
  }

  // Runs one step; false: nothing could run.
  bool step() {
    scheduler_->plan(now_, plan_);
    for (const Refusal& refusal : plan_.refused) dropped_.push_back(refusal);
    if (plan_.empty()) return false;
    StepResult result{
        .step = plan_.step, .spans = {}, .seconds = (kFixed + kToken * plan_.total_tokens) * slowness_};
    now_ += from_seconds(result.seconds);
    for (const PlannedSpan& span : plan_.spans) {
      SpanResult& outcome = result.spans.emplace_back(SpanResult{.request = span.request});
      if (!span.samples) continue;
      outcome.token = 7;
      first_token_.try_emplace(span.request, now_);
    }
    scheduler_->commit(result);
    return true;
  }
  void drain() {
    while (step()) {
    }
    ASSERT_TRUE(scheduler_->idle());
  }
  // Prompts of several lengths, so that the scheduler knows what steps cost.
  void learn() {
    for (RequestId id = 9000; id < 9004; ++id) {
      add(id, 16 * (id - 8990), 3);
      drain();
    }
    first_token_.clear();
  }
  double ttft_ms(RequestId id, TimePoint arrival) { return to_ms(first_token_.at(id) - arrival); }
  SloStats slo() const { return scheduler_->stats().slo; }

  bool prefix_cache_ = false;
  double slowness_ = 1;
  std::unique_ptr<KvPool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
  StepPlan plan_;
  TimePoint now_{};
  std::map<RequestId, TimePoint> first_token_;
  std::vector<Refusal> dropped_;
};

TEST_F(Slo, AcceptsEverythingWhileNothingWasMeasured) {
  make({});
  EXPECT_EQ(add(1, 1000, 2, 1), std::nullopt);
  drain();
  EXPECT_EQ(slo().missed_ttft, 1u);
}

TEST_F(Slo, LearnsWhatAStepCosts) {
  make({});
  learn();
  EXPECT_NEAR(scheduler_->stats().step_fixed_s, kFixed, 1e-6);
  EXPECT_NEAR(scheduler_->stats().step_token_s, kToken, 1e-8);
}

// 200 tokens: one step of 10 + 200 ms on a machine that does nothing else.
TEST_F(Slo, RefusesWhatItsOwnPromptMakesImpossibleAndSaysNever) {
  make({});
  learn();
  const auto refusal = add(1, 200, 2, 200);
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->cause, RefusalCause::kDeadline);
  EXPECT_EQ(refusal->retry_after_s, 0) << "waiting does not help";
  EXPECT_NEAR(refusal->predicted_ttft_s, 0.210, 1e-3);
  EXPECT_EQ(add(2, 200, 2, 220), std::nullopt);
  drain();
  EXPECT_EQ(slo().met, 1u);
  EXPECT_EQ(slo().refused, 1u);
  EXPECT_EQ(scheduler_->stats().refused, 1u);
}

TEST_F(Slo, ThePrefixCacheCountsTowardsThePrediction) {
  prefix_cache_ = true;
  make({});
  learn();
  const auto same_prompt = [&](RequestId id) {
    return scheduler_->add({.id = id,
                            .prompt = prompt_of(400, 77),
                            .max_new_tokens = 2,
                            .arrival = now_,
                            .slo = {.ttft = milliseconds(100)}});
  };
  EXPECT_TRUE(same_prompt(1)) << "410 ms of work";
  ASSERT_EQ(add(77, 400, 2), std::nullopt);
  drain();
  EXPECT_EQ(same_prompt(2), std::nullopt) << "16 tokens are left";
  drain();
  EXPECT_EQ(slo().met, 1u);
}

// What it says is what happens: the refused request, sent again when it was told to, makes its target.
TEST_F(Slo, ARefusalsRetryAfterIsHonest) {
  make({.token_budget = 128});
  learn();
  for (RequestId id = 1; id <= 6; ++id) add(id, 500, 1, 0, Priority::kHigh);
  const auto refusal = add(7, 100, 1, 1000);
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->cause, RefusalCause::kDeadline);
  EXPECT_GT(refusal->retry_after_s, 1);
  const TimePoint again = now_ + from_seconds(refusal->retry_after_s);
  while (now_ < again) ASSERT_TRUE(step());
  const TimePoint arrival = now_;
  ASSERT_EQ(add(8, 100, 1, 1000), std::nullopt);
  drain();
  EXPECT_LE(ttft_ms(8, arrival), 1000);
  EXPECT_EQ(slo().met, 1u);
}

TEST_F(Slo, ThePredictionIsCloseToWhatHappens) {
  make({.token_budget = 128});
  learn();
  for (RequestId id = 1; id <= 4; ++id) add(id, 300, 1, 0, Priority::kHigh);
  const TimePoint arrival = now_;
  const auto refusal = add(5, 100, 1, 1, Priority::kHigh);  // 1 ms: refused, which tells the prediction
  ASSERT_TRUE(refusal);
  add(6, 100, 1, 0, Priority::kNormal);
  drain();
  EXPECT_NEAR(refusal->predicted_ttft_s * 1e3, ttft_ms(6, arrival), 0.15 * ttft_ms(6, arrival));
}

TEST_F(Slo, WaitsForSlotsCountToo) {
  make({.max_running = 1});
  add(1, 10, 100);  // about 1.1 s
  drain();          // the only end so far took that long
  add(2, 10, 100);
  step();
  const auto refusal = add(3, 10, 1, 500, Priority::kCritical);
  ASSERT_TRUE(refusal) << "the only slot is taken";
  EXPECT_GT(refusal->retry_after_s, 0);
  drain();
}

TEST_F(Slo, MovesUpWhatWouldMissItsTargetInItsOwnTier) {
  make({.token_budget = 128});
  learn();
  for (RequestId id = 1; id <= 6; ++id) add(id, 500, 1);  // 3 s of work without any target
  const TimePoint arrival = now_;
  ASSERT_EQ(add(7, 100, 1, 1000), std::nullopt) << "overtakes them";
  EXPECT_EQ(slo().promoted, 1u);
  drain();
  EXPECT_LE(ttft_ms(7, arrival), 1000);
  EXPECT_EQ(slo().met, 1u);
}

// Taken on a prediction that later arrivals of a better tier would break: half of the slack gone, it goes up.
TEST_F(Slo, RescuesWhatIsOvertaken) {
  make({.max_running = 1});
  learn();
  add(1, 10, 20);
  step();
  const TimePoint arrival = now_;
  ASSERT_EQ(add(2, 10, 1, 2000), std::nullopt);
  EXPECT_EQ(slo().promoted, 0u);
  for (RequestId id = 100; !first_token_.contains(2); ++id) {
    if (scheduler_->stats().waiting < 4) add(id, 10, 20, 0, Priority::kHigh);
    ASSERT_TRUE(step());
    ASSERT_LT(now_ - arrival, std::chrono::seconds(20));
  }
  EXPECT_EQ(slo().promoted, 1u);
  EXPECT_LE(ttft_ms(2, arrival), 2000);
}

// The machine becomes ten times slower than it was: what waits and has lost is dropped with nothing computed
// for it.
TEST_F(Slo, DropsWhatCanNoLongerMakeItBeforeAnyWork) {
  make({.max_running = 1});
  learn();
  add(1, 10, 60);
  step();
  ASSERT_EQ(add(2, 100, 1, 2500), std::nullopt);
  slowness_ = 10;
  drain();
  ASSERT_EQ(dropped_.size(), 1u);
  EXPECT_EQ(dropped_[0].request, 2u);
  EXPECT_EQ(dropped_[0].cause, RefusalCause::kDeadline);
  EXPECT_FALSE(first_token_.contains(2));
  EXPECT_EQ(slo().refused, 1u);
  EXPECT_EQ(slo().missed_ttft, 0u);
}

TEST_F(Slo, CountsGoodputByBothTargets) {
  make({});
  learn();
  add(1, 10, 5, 100, Priority::kNormal, 50);
  drain();
  EXPECT_EQ(slo().met, 1u);
  EXPECT_EQ(slo().goodput_tokens, 5u);
  add(2, 10, 5, 0, Priority::kNormal, 5);  // a step takes 11 ms
  drain();
  EXPECT_EQ(slo().missed_tpot, 1u);
  add(3, 10, 1, 0, Priority::kNormal, 5);  // one token: there is no later one
  drain();
  EXPECT_EQ(slo().met, 2u);
  add(4, 10, 5);
  drain();
  EXPECT_EQ(slo().requests, 3u) << "a request without a target is none of these";
  EXPECT_EQ(slo().goodput_tokens, 6u);
}

// --- steps kept short for those who wait for their next token ---

TEST_F(Slo, ATpotTargetShortensTheStepsBesideIt) {
  const auto longest_step_ms = [&](int tpot_ms) {
    make({});
    learn();
    add(1, 10, 60, 0, Priority::kNormal, tpot_ms);
    step();
    add(2, 4000, 1);
    double longest = 0;
    while (!first_token_.contains(2)) {
      const TimePoint before = now_;
      step();
      longest = std::max(longest, to_ms(now_ - before));
      if (slo().met + slo().missed_tpot > 0) break;
    }
    drain();
    return longest;
  };
  EXPECT_GT(longest_step_ms(0), 500) << "a step of 512 tokens";
  EXPECT_LE(longest_step_ms(80), 80);
  EXPECT_EQ(slo().met, 1u);
}

TEST_F(Slo, ATargetItlHoldsForEverybodyAndOnlyWhileSomebodyDecodes) {
  make({.target_itl = milliseconds(100)});
  learn();
  add(1, 2000, 40);
  ASSERT_TRUE(step());
  EXPECT_EQ(plan_.total_tokens, 512) << "nobody waits for a next token";
  while (!first_token_.contains(1)) step();
  add(2, 3000, 1);
  int beside = 0;
  while (!first_token_.contains(2)) {
    ASSERT_TRUE(step());
    if (plan_.decode_rows == 0) continue;
    ++beside;
    EXPECT_LE(plan_.total_tokens, 100);
    EXPECT_GE(plan_.total_tokens, 60) << "and the prompt gets what the target leaves";
  }
  EXPECT_GT(beside, 10);
  drain();
}

TEST_F(Slo, ATargetThatNothingCanMeetDoesNotStarvePrompts) {
  make({.target_itl = milliseconds(1)});
  learn();
  add(1, 10, 1000);
  step();
  add(2, 320, 1);
  for (int i = 0; i < 320 / kPageTokens; ++i) ASSERT_TRUE(step());
  EXPECT_TRUE(first_token_.contains(2)) << "a page a step";
  drain();
}

TEST(StepCost, ForgetsTheOldMachine) {
  StepCost cost;
  for (int i = 0; i < 200; ++i) cost.add(1 + i % 100, 0.1 + 0.01 * (1 + i % 100));
  for (int i = 0; i < 400; ++i) cost.add(1 + i % 100, 0.01 + 0.001 * (1 + i % 100));
  EXPECT_NEAR(cost.of(512), 0.01 + 0.512, 0.01);
}

TEST(StepCost, KeepsThePriceOfATokenWhileStepsHaveOneSize) {
  StepCost cost;
  for (int i = 0; i < 20; ++i) cost.add(10 + 50 * (i % 3), 0.01 + 0.001 * (10 + 50 * (i % 3)));
  for (int i = 0; i < 5000; ++i) cost.add(1, 0.02);
  EXPECT_NEAR(cost.of(1), 0.02, 1e-4);
  EXPECT_NEAR(cost.per_token(), 0.001, 2e-4);
}

TEST(StepCost, OneInterruptedStepHardlyCounts) {
  StepCost cost;
  for (int i = 0; i < 100; ++i) cost.add(1 + i % 50, 0.01 + 0.001 * (1 + i % 50));
  const double before = cost.of(100);
  cost.add(1, 60);
  EXPECT_LT(cost.of(100), 1.5 * before);
}

TEST(StepCost, NeverPredictsLessThanNothing) {
  StepCost cost;
  EXPECT_FALSE(cost.known());
  cost.add(100, 0.1);
  cost.add(200, 0.05);
  cost.add(0, 1);
  cost.add(5, -1);
  EXPECT_GE(cost.fixed(), 0);
  EXPECT_GE(cost.per_token(), 0);
}

}  // namespace
}  // namespace mlxs
