// Steps of more tokens than answers under way always put up with: large while nobody waits for a next token,
// else as large as their measured cost allows.
#include <gtest/gtest.h>

#include <numeric>

#include "sched/scheduler.h"

namespace mlxs {
namespace {

using std::chrono::milliseconds;

class LargeSteps : public ::testing::Test {
 protected:
  void add(RequestId id, int prompt, int max_new = 1) {
    SchedRequest request{.id = id, .max_new_tokens = max_new};
    request.prompt.resize(static_cast<std::size_t>(prompt));
    std::iota(request.prompt.begin(), request.prompt.end(), static_cast<TokenId>(10000 * id));
    ASSERT_EQ(scheduler_.add(std::move(request)), std::nullopt);
  }
  // A step, which takes as long as it should; its tokens.
  int step() {
    scheduler_.plan(now_, plan_);
    StepResult result{.step = plan_.step, .seconds = fixed_s_ + token_s_ * plan_.total_tokens};
    for (const PlannedSpan& span : plan_.spans)
      result.spans.push_back({.request = span.request, .token = span.samples ? 7 : -1});
    now_ += from_seconds(result.seconds);
    if (!plan_.empty()) scheduler_.commit(result);
    scheduler_.check();
    return plan_.total_tokens;
  }

  double fixed_s_ = 0.03, token_s_ = 7e-5;
  KvPool pool_{{.num_pages = 4096}};
  Scheduler scheduler_{
      {.token_budget = 8192, .max_context = 40000, .sure_budget = 512, .large_step = milliseconds(100)},
      pool_};
  StepPlan plan_;
  TimePoint now_{};
};

TEST_F(LargeSteps, NobodyWaitsForANextTokenSoPromptsHaveTheWholeStep) {
  for (RequestId id = 1; id <= 32; ++id) add(id, 512);
  EXPECT_EQ(step(), 8192);
  ASSERT_EQ(plan_.spans.size(), 16u) << "whole prompts";
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(plan_.spans[i].request, i + 1) << "in order of arrival";
  EXPECT_EQ(step(), 8192);
  EXPECT_EQ(scheduler_.stats().finished, 32u);
}

TEST_F(LargeSteps, AreFilledToTheLastToken) {
  for (RequestId id = 1; id <= 12; ++id) add(id, 819);  // ten of them leave two tokens
  EXPECT_EQ(step(), 8192);
  EXPECT_EQ(plan_.spans.size(), 11u);
}

TEST_F(LargeSteps, BesideAnswersTheyGrowAsFarAsTheirCostIsKnown) {
  add(1, 20, 1000);
  step();
  step();
  add(2, 20000);
  step();
  EXPECT_EQ(scheduler_.stats().token_budget, 512) << "twenty tokens say little of thousands";
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(step(), 768) << "of 857 that fit into 90 ms, a round number";
    EXPECT_EQ(scheduler_.stats().token_budget, 768);
  }
  EXPECT_EQ(plan_.decode_rows, 1);
}

TEST_F(LargeSteps, AreNoLargerThanPays) {
  fixed_s_ = 0.004;
  token_s_ = 2e-5;
  add(1, 20, 1000);
  step();
  step();
  add(2, 30000);
  for (const int most : {497, 768, 1536, 1792, 1792})
    EXPECT_EQ(step(), most);  // 2,000, less the share of one
}

TEST_F(LargeSteps, ASlowMachineStillTakesTheSureBudget) {
  token_s_ = 1e-3;
  add(1, 20, 1000);
  step();
  step();
  add(2, 20000);
  for (int i = 0; i < 5; ++i) {
    EXPECT_NEAR(step(), 512, 16);
    EXPECT_EQ(scheduler_.stats().token_budget, 512);
  }
}

TEST_F(LargeSteps, AFastMachineGrowsToTheWholeBudgetByDoubling) {
  fixed_s_ = 1e-3;
  token_s_ = 1e-8;
  add(1, 20, 1000);
  step();
  step();
  add(2, 30000);
  for (const int most : {497, 768, 1536, 3072, 6144, 8192}) EXPECT_EQ(step(), most);
}

TEST_F(LargeSteps, MoreAnswersThanTheSureBudgetLeavePromptsAPage) {
  KvPool pool({.num_pages = 2048});
  Scheduler scheduler({.max_running = 1000, .token_budget = 8192, .sure_budget = 512}, pool);
  for (RequestId id = 1; id <= 701; ++id) {
    ASSERT_EQ(scheduler.add({.id = id, .prompt = {static_cast<TokenId>(id)}, .max_new_tokens = 9}),
              std::nullopt);
    if (id < 700) continue;
    scheduler.plan(now_, plan_);
    if (id == 701) break;
    StepResult result{.step = plan_.step, .seconds = 0.01};
    for (const PlannedSpan& span : plan_.spans) result.spans.push_back({.request = span.request, .token = 7});
    scheduler.commit(result);
  }
  EXPECT_EQ(plan_.decode_rows, 700);
  EXPECT_EQ(plan_.total_tokens, 701);
  EXPECT_EQ(scheduler.stats().token_budget, 716);
}

}  // namespace
}  // namespace mlxs
