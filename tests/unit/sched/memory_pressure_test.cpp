// Steps that the device has no memory for: smaller ones follow, nobody is lost, and the bound goes away
// again.
#include <gtest/gtest.h>

#include <numeric>

#include "mlxs/error.h"
#include "sched/scheduler.h"

namespace mlxs {
namespace {

class MemoryPressure : public ::testing::Test {
 protected:
  MemoryPressure() : pool_({.num_pages = 64}), scheduler_({.token_budget = 64}, pool_) {}

  void add(RequestId id, int prompt, int max_new) {
    SchedRequest request{.id = id, .max_new_tokens = max_new};
    request.prompt.resize(static_cast<std::size_t>(prompt));
    std::iota(request.prompt.begin(), request.prompt.end(), static_cast<TokenId>(100 * id));
    ASSERT_EQ(scheduler_.add(std::move(request)), std::nullopt);
  }
  void commit() {
    StepResult result{.step = plan_.step, .seconds = 0.001};
    for (const PlannedSpan& span : plan_.spans)
      result.spans.push_back({.request = span.request, .token = span.samples ? 7 : -1});
    scheduler_.commit(result);
    scheduler_.check();
  }
  // Steps until nothing is left; a step of more than `room` tokens has no memory. The largest that ran.
  int drain(int room) {
    int largest = 0;
    while (!scheduler_.idle()) {
      scheduler_.plan(now_, plan_);
      now_ += std::chrono::milliseconds(1);
      if (plan_.empty()) continue;
      if (plan_.total_tokens > room) {
        EXPECT_TRUE(scheduler_.shrink(now_, plan_));
        scheduler_.check();
        continue;
      }
      largest = std::max(largest, plan_.total_tokens);
      commit();
    }
    return largest;
  }

  KvPool pool_;
  Scheduler scheduler_;
  StepPlan plan_;
  TimePoint now_{};
};

TEST_F(MemoryPressure, PromptsGoInSmallerChunks) {
  add(1, 60, 3);
  EXPECT_LE(drain(10), 10);
  EXPECT_EQ(scheduler_.stats().finished, 1u);
  EXPECT_EQ(scheduler_.stats().preemptions, 0u);
}

TEST_F(MemoryPressure, TooManyDecodingRequestsArePreempted) {
  for (RequestId id = 1; id <= 8; ++id) add(id, 5, 40);
  EXPECT_LE(drain(3), 3);
  const SchedulerStats stats = scheduler_.stats();
  EXPECT_EQ(stats.finished, 8u);
  EXPECT_EQ(stats.generated_tokens, 8u * 40);
  EXPECT_GE(stats.preemptions, 5u);
  EXPECT_EQ(stats.kv.held, 0);
}

TEST_F(MemoryPressure, TheBoundGoesWhenStepsRun) {
  add(1, 60, 3);
  scheduler_.plan(now_, plan_);
  ASSERT_EQ(plan_.total_tokens, 60);
  ASSERT_TRUE(scheduler_.shrink(now_, plan_));
  scheduler_.plan(now_, plan_);
  EXPECT_LE(plan_.total_tokens, 30);
  commit();
  drain(30);
  add(2, 1, 200);
  drain(64);
  add(3, 60, 3);
  EXPECT_EQ(drain(64), 60);
}

TEST_F(MemoryPressure, AStepOfOneTokenCannotShrink) {
  add(1, 1, 3);
  scheduler_.plan(now_, plan_);
  EXPECT_FALSE(scheduler_.shrink(now_, plan_));
  StepResult failed{.step = plan_.step, .spans = {{.request = 1, .token = -1, .finished = true}}};
  scheduler_.commit(failed);
  scheduler_.check();
  EXPECT_TRUE(scheduler_.idle());
  EXPECT_THROW(scheduler_.shrink(now_, plan_), Error);
}

}  // namespace
}  // namespace mlxs
