// The step behind the one under way: who has a row in it, when there is none, and what becomes of rows whose
// request ends meanwhile. scheduler_random_test.cpp and scheduler_property_test.cpp live with it at random.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "mlxs/error.h"
#include "sched/scheduler.h"

namespace mlxs {
namespace {

using testing::ElementsAre;

class PlanningAhead : public ::testing::Test {
 protected:
  explicit PlanningAhead(SchedulerConfig config = {.max_running = 3, .token_budget = 64},
                         std::int32_t num_pages = 32)
      : pool_({.num_pages = num_pages}), scheduler_(config, pool_) {}

  void add(RequestId id, int prompt, int max_new) {
    SchedRequest request{.id = id, .max_new_tokens = max_new};
    request.prompt.resize(static_cast<std::size_t>(prompt));
    std::iota(request.prompt.begin(), request.prompt.end(), static_cast<TokenId>(1000 * id));
    ASSERT_EQ(scheduler_.add(std::move(request)), std::nullopt);
  }
  void plan() {
    scheduler_.plan({}, plan_);
    ASSERT_FALSE(plan_.empty());
  }
  bool ahead() { return scheduler_.plan_ahead({}, behind_); }
  // The step under way ends, and with it `finished`; the one behind is under way then, if there is one.
  void commit(std::vector<RequestId> finished = {}) {
    StepResult result{.step = plan_.step, .seconds = 0.001};
    for (const PlannedSpan& span : plan_.spans) {
      result.spans.push_back({.request = span.request,
                              .token = span.samples ? 7 : -1,
                              .finished = std::ranges::count(finished, span.request) > 0});
    }
    scheduler_.commit(result);
    scheduler_.check();
    std::swap(plan_, behind_);
  }
  // A step in which all of them sample is under way.
  void start(std::initializer_list<RequestId> ids, int prompt = 5, int max_new = 20) {
    for (const RequestId id : ids) add(id, prompt, max_new);
    plan();
  }
  static std::vector<RequestId> rows(const StepPlan& plan) {
    std::vector<RequestId> ids;
    for (const PlannedSpan& span : plan.spans) ids.push_back(span.request);
    return ids;
  }

  KvPool pool_;
  Scheduler scheduler_;
  StepPlan plan_, behind_;
};

TEST_F(PlanningAhead, FeedsEveryAnswerWithTheTokenOfTheStepBefore) {
  start({1, 2});
  ASSERT_TRUE(ahead());
  EXPECT_EQ(behind_.step, plan_.step + 1);
  EXPECT_EQ(behind_.decode_rows, 2);
  EXPECT_THAT(rows(behind_), ElementsAre(1, 2));
  for (std::int32_t i = 0; i < 2; ++i) {
    const PlannedSpan& span = behind_.spans[static_cast<std::size_t>(i)];
    EXPECT_EQ(span.fed, i);
    EXPECT_EQ(span.start, 5);
    EXPECT_EQ(span.count, 1);
    EXPECT_TRUE(span.samples);
  }
  commit();
  ASSERT_TRUE(ahead()) << "behind a step that was itself planned ahead";
  EXPECT_EQ(behind_.spans[1].start, 6);
  EXPECT_EQ(scheduler_.stats().steps_ahead, 2u);
  commit();
  commit();
  plan();
  EXPECT_EQ(plan_.spans[0].start, 7);
  EXPECT_EQ(plan_.spans[0].fed, -1);
}

TEST_F(PlanningAhead, TakesAPageWhereAnAnswerBeginsOne) {
  start({1}, 16);
  ASSERT_EQ(plan_.spans[0].pages.size(), 1u);
  ASSERT_TRUE(ahead());
  EXPECT_EQ(behind_.spans[0].pages.size(), 2u);
}

TEST_F(PlanningAhead, NoRowBehindATokenThatIsKnownToBeTheLast) {
  add(1, 5, 1);
  start({2});
  ASSERT_TRUE(ahead());
  EXPECT_THAT(rows(behind_), ElementsAre(2));
  EXPECT_EQ(behind_.spans[0].fed, 1) << "the second span of the step before";
  commit();
  EXPECT_EQ(scheduler_.stats().finished, 1u);
}

TEST_F(PlanningAhead, NothingBehindTheLastTokenOfAll) {
  start({1}, 5, 1);
  EXPECT_FALSE(ahead());
}

TEST_F(PlanningAhead, NotWhileAPromptIsNotComplete) {
  start({1, 2}, 40);  // the budget holds one and a page of the other
  ASSERT_EQ(plan_.spans.size(), 2u);
  ASSERT_FALSE(plan_.spans[1].samples);
  EXPECT_FALSE(ahead());
  commit();
  plan();
  EXPECT_TRUE(ahead());
}

TEST_F(PlanningAhead, NotWhileSomebodyCouldStart) {
  start({1, 2});
  add(3, 5, 5);
  EXPECT_FALSE(ahead()) << "the third place is its own";
}

TEST_F(PlanningAhead, BehindAFullHouseUnlessAPlaceComesFree) {
  start({1, 2, 3});
  add(4, 5, 5);
  ASSERT_TRUE(ahead());
  EXPECT_EQ(behind_.blocked, QueueBlock::kSlots);
  commit();
  scheduler_.pause(2);
  EXPECT_FALSE(ahead()) << "a paused request gives up its place";
  scheduler_.resume(2);
  EXPECT_TRUE(ahead());
  commit({1});
  EXPECT_FALSE(ahead()) << "the place of the first is free";
}

TEST_F(PlanningAhead, NotWhereAFullHouseIsKnownToLoseOne) {
  add(1, 5, 2);
  start({2, 3});
  add(4, 5, 5);
  ASSERT_TRUE(ahead());
  commit();
  EXPECT_FALSE(ahead()) << "the first gets its last token";
}

TEST_F(PlanningAhead, APausedRequestHasNoRowAndAResumedOneIsWaitedFor) {
  start({1, 2});
  scheduler_.pause(1);
  ASSERT_TRUE(ahead());
  EXPECT_THAT(rows(behind_), ElementsAre(2));
  commit();
  scheduler_.resume(1);
  EXPECT_FALSE(ahead());
  commit();
  plan();
  EXPECT_THAT(rows(plan_), ElementsAre(1, 2));
}

TEST_F(PlanningAhead, WhoEndsLeavesAVoidRow) {
  start({1, 2});
  ASSERT_TRUE(ahead());
  commit({1});
  EXPECT_EQ(scheduler_.stats().finished, 1u);
  EXPECT_EQ(scheduler_.stats().void_rows, 0u);
  ASSERT_TRUE(ahead());
  EXPECT_THAT(rows(behind_), ElementsAre(2));
  EXPECT_EQ(behind_.spans[0].fed, 1);
  commit();
  EXPECT_EQ(scheduler_.stats().void_rows, 1u);
  EXPECT_EQ(scheduler_.stats().finished, 1u);
  EXPECT_EQ(scheduler_.stats().generated_tokens, 3u) << "two of the first step, one of the second";
}

TEST_F(PlanningAhead, WhoLeavesIsVoidInBothSteps) {
  start({1, 2});
  ASSERT_TRUE(ahead());
  scheduler_.cancel(1);
  scheduler_.finish(2);
  scheduler_.check();
  EXPECT_EQ(pool_.stats().held, 0) << "the device writes in order: who gets these pages writes later";
  EXPECT_TRUE(scheduler_.idle());
  commit();
  EXPECT_FALSE(ahead());
  commit();
  EXPECT_EQ(scheduler_.stats().void_rows, 4u);
  EXPECT_EQ(scheduler_.stats().generated_tokens, 0u);
  EXPECT_EQ(scheduler_.stats().finished, 1u) << "the one that was complete";
}

TEST_F(PlanningAhead, ADroppedStepIsPlannedAgain) {
  start({1, 2}, 16);
  ASSERT_TRUE(ahead());
  const std::uint64_t step = behind_.step;
  const std::vector<PageId> pages = behind_.spans[0].pages;
  scheduler_.drop_ahead();
  scheduler_.check();
  EXPECT_EQ(scheduler_.stats().steps_ahead, 0u);
  commit();
  plan();
  EXPECT_EQ(plan_.step, step);
  EXPECT_EQ(plan_.spans[0].pages, pages) << "what it had taken is used";
}

TEST_F(PlanningAhead, ADroppedStepMayBeFollowedByLessMemory) {
  start({1, 2});
  ASSERT_TRUE(ahead());
  EXPECT_THROW(scheduler_.shrink({}, plan_), Error);
  scheduler_.drop_ahead();
  EXPECT_TRUE(scheduler_.shrink({}, plan_));
  scheduler_.check();
  plan();
  EXPECT_LE(plan_.total_tokens, 5);
}

TEST_F(PlanningAhead, SaysWhichPromiseOfTheCallerWasBroken) {
  EXPECT_THROW(ahead(), Error) << "nothing is under way";
  EXPECT_THROW(scheduler_.drop_ahead(), Error);
  start({1});
  ASSERT_TRUE(ahead());
  EXPECT_THROW(ahead(), Error) << "two are under way";
  EXPECT_THROW(scheduler_.plan({}, plan_), Error);
  EXPECT_THROW(scheduler_.commit({.step = behind_.step, .spans = {{.request = 1, .token = 5}}}), Error)
      << "the first is committed first";
}

class PlanningAheadInFewPages : public PlanningAhead {
 protected:
  PlanningAheadInFewPages() : PlanningAhead({.max_running = 3, .token_budget = 64}, 3) {}
};

TEST_F(PlanningAheadInFewPages, NobodyLosesPagesForIt) {
  start({1, 2}, 16, 10);
  EXPECT_FALSE(ahead()) << "both begin a page, and one is left";
  commit();
  scheduler_.plan({}, plan_);
  EXPECT_EQ(plan_.preempted.size(), 1u);
}

}  // namespace
}  // namespace mlxs
