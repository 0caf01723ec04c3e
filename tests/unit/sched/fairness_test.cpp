// Fairness between tenants, counted in tokens as the test counts them itself: whatever one tenant sends,
// another's service stays within the bound of Sheng et al. (OSDI 2024, theorem 4.4), and nothing of the
// machine is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "sched/fair_share.h"
#include "sched/scheduler.h"
#include "unit/sched/driver.h"

namespace mlxs {
namespace {

constexpr double kPromptWeight = 1, kOutputWeight = 2;
constexpr std::int32_t kSlots = 8, kLongestPrompt = 200, kLongestAnswer = 60;

struct Tenant {
  TenantId id = 0;
  double weight = 1;
  std::int32_t prompt = 0, answer = 0;  // of its requests
  std::size_t backlog = 0;              // requests that it keeps waiting
};

// Tenants that always have requests waiting; what each was served.
class Flood {
 public:
  Flood(SchedulerConfig config, std::vector<Tenant> tenants)
      : pool_({.num_pages = 2048, .prefix_cache = false}),
        scheduler_(config, pool_),
        tenants_(std::move(tenants)) {}

  void refill() {
    for (const Tenant& tenant : tenants_) {
      for (; waiting_[tenant.id] < tenant.backlog; ++waiting_[tenant.id]) add(tenant);
    }
  }
  void add(const Tenant& tenant) {
    const RequestId id = ++last_;
    owner_[id] = tenant.id;
    if (scheduler_.add({.id = id,
                        .prompt = prompt_of(static_cast<std::size_t>(tenant.prompt)),
                        .max_new_tokens = tenant.answer,
                        .arrival = now_,
                        .tenant = tenant.id,
                        .tenant_weight = tenant.weight})) {
      ++refused_[tenant.id];
    }
  }
  // One step; counts the tokens that it computed or sampled for each tenant.
  void step() {
    scheduler_.plan(now_, plan_);
    ASSERT_FALSE(plan_.empty());
    for (const RequestId id : plan_.admitted) --waiting_[owner_.at(id)];
    for (const Refusal& refusal : plan_.refused) {
      --waiting_[owner_.at(refusal.request)];
      ++refused_[owner_.at(refusal.request)];
    }
    StepResult result{.step = plan_.step, .spans = {}, .seconds = 0.01};
    for (std::size_t i = 0; i < plan_.spans.size(); ++i) {
      const PlannedSpan& span = plan_.spans[i];
      const TenantId tenant = owner_.at(span.request);
      if (i >= static_cast<std::size_t>(plan_.decode_rows)) served_[tenant] += kPromptWeight * span.count;
      if (span.samples) served_[tenant] += kOutputWeight;
      result.spans.push_back({.request = span.request, .token = span.samples ? 5 : -1});
      tokens_ += static_cast<std::uint64_t>(span.count);
    }
    scheduler_.commit(result);
    now_ += std::chrono::milliseconds(1);
  }
  double served(TenantId tenant) const {
    const auto found = served_.find(tenant);
    return found == served_.end() ? 0 : found->second;
  }
  int refused(TenantId tenant) const {
    const auto found = refused_.find(tenant);
    return found == refused_.end() ? 0 : found->second;
  }
  void drain() {
    for (; !scheduler_.idle(); ++steps_) step();
  }
  std::uint64_t tokens() const { return tokens_; }
  std::uint64_t steps() const { return steps_; }
  Scheduler& scheduler() { return scheduler_; }
  void include(const Tenant& tenant) { tenants_.push_back(tenant); }

 private:
  KvPool pool_;
  Scheduler scheduler_;
  std::vector<Tenant> tenants_;
  std::map<TenantId, std::size_t> waiting_;
  std::map<RequestId, TenantId> owner_;
  std::map<TenantId, double> served_;
  std::map<TenantId, int> refused_;
  StepPlan plan_;
  TimePoint now_{};
  RequestId last_ = 0;
  std::uint64_t tokens_ = 0, steps_ = 0;
};

SchedulerConfig config(bool fairness = true) {
  return {.max_running = kSlots,
          .max_queue_depth = 100000,
          .token_budget = 256,
          .aging_interval = std::chrono::hours(1000),
          .fairness = {.enabled = fairness, .prompt_weight = kPromptWeight, .output_weight = kOutputWeight}};
}

// 2 · max(w_p · longest prompt, w_q · tokens that can run at once), and the prompts that are charged at
// admission and computed later.
constexpr double kBound = 2 * std::max<double>(kPromptWeight * kLongestPrompt,
                                               kOutputWeight* kSlots*(kLongestPrompt + kLongestAnswer));

TEST(Fairness, AFloodDoesNotPushOthersBeyondTheBound) {
  const Tenant flood{.id = 1, .prompt = kLongestPrompt, .answer = kLongestAnswer, .backlog = 500};
  const Tenant small{.id = 2, .prompt = 20, .answer = 10, .backlog = 2 * kSlots};
  const Tenant chatty{.id = 3, .prompt = 5, .answer = kLongestAnswer, .backlog = 2 * kSlots};
  Flood traffic(config(), {flood, small, chatty});
  double worst = 0;
  for (int i = 0; i < 20000; ++i) {
    traffic.refill();
    traffic.step();
    for (const TenantId other : {2u, 3u}) {
      worst = std::max(worst, std::abs(traffic.served(1) - traffic.served(other)));
    }
  }
  EXPECT_LE(worst, kBound);
  EXPECT_GT(traffic.served(2), 10 * kBound) << "long enough for the bound to mean something";
}

// Every request of the flood waits until it has aged into the best tier, and others' new ones have not.
TEST(Fairness, WaitingForLongIsNoClaimAgainstWhoGotLess) {
  SchedulerConfig ageing = config();
  ageing.aging_interval = std::chrono::milliseconds(50);
  const Tenant flood{.id = 1, .prompt = kLongestPrompt, .answer = kLongestAnswer, .backlog = 500};
  const Tenant small{.id = 2, .prompt = 20, .answer = 10, .backlog = 1};
  Flood traffic(ageing, {flood, small});
  double worst = 0;
  for (int i = 0; i < 20000; ++i) {
    traffic.refill();
    traffic.step();
    worst = std::max(worst, traffic.served(1) - traffic.served(2));
  }
  // One request at a time cannot use half of the machine: what it did not ask for is no unfairness.
  EXPECT_GT(traffic.served(2), 20000 / 15 * 40.0) << "a slot in every 15 steps or fewer: it never waits long";
  Flood asking(ageing, {flood, {.id = 2, .prompt = 20, .answer = 10, .backlog = 2 * kSlots}});
  worst = 0;
  for (int i = 0; i < 20000; ++i) {
    asking.refill();
    asking.step();
    worst = std::max(worst, std::abs(asking.served(1) - asking.served(2)));
  }
  EXPECT_LE(worst, kBound);
}

TEST(Fairness, AFullQueueIsSharedByTenant) {
  SchedulerConfig small_queue = config();
  small_queue.max_queue_depth = 100;
  const Tenant flood{.id = 1, .prompt = kLongestPrompt, .answer = kLongestAnswer};
  const Tenant polite{.id = 2, .prompt = 20, .answer = 10};
  Flood traffic(small_queue, {});
  for (int i = 0; i < 4000; ++i) {
    traffic.add(flood);
    traffic.add(flood);
    if (i % 20 == 0) traffic.add(polite);
    traffic.step();
    ASSERT_LE(traffic.scheduler().stats().waiting, 100);
  }
  EXPECT_GT(traffic.refused(1), 5000);
  EXPECT_EQ(traffic.refused(2), 0);
  EXPECT_GT(traffic.scheduler().stats().displaced, 100u);
  EXPECT_GE(traffic.served(2), 200 * (20 + 2 * 10) - kBound) << "all that it asked for";
}

TEST(Fairness, InAFullQueueTheWorstTierMakesPlaceForABetterOne) {
  SchedulerConfig small_queue = config();
  small_queue.max_queue_depth = 4;
  KvPool pool({.num_pages = 64});
  Scheduler scheduler(small_queue, pool);
  RequestId last = 0;
  const auto add = [&](Priority priority, TenantId tenant) {
    return scheduler.add(
        {.id = ++last, .prompt = prompt_of(10), .max_new_tokens = 5, .priority = priority, .tenant = tenant});
  };
  EXPECT_FALSE(add(Priority::kLow, 1));
  EXPECT_FALSE(add(Priority::kLow, 1));
  EXPECT_FALSE(add(Priority::kNormal, 1));
  EXPECT_FALSE(add(Priority::kNormal, 1));
  ASSERT_TRUE(add(Priority::kLow, 1));  // 5: as bad as the worst
  EXPECT_FALSE(add(Priority::kHigh, 1)) << "in place of 2";
  EXPECT_FALSE(add(Priority::kLow, 2)) << "in place of 1: tenant 1 has all the others";
  EXPECT_FALSE(add(Priority::kLow, 2)) << "in place of 4";
  EXPECT_FALSE(add(Priority::kNormal, 3)) << "in place of 3: nobody has none";
  ASSERT_TRUE(add(Priority::kNormal, 3)) << "two are as many as anybody has";
  scheduler.cancel(1);  // it has lost its place already: nothing more to say of it
  StepPlan plan;
  scheduler.plan({}, plan);
  std::vector<RequestId> gone;
  for (const Refusal& refusal : plan.refused) {
    EXPECT_EQ(refusal.cause, RefusalCause::kQueueFull);
    EXPECT_GT(refusal.retry_after_s, 0);
    gone.push_back(refusal.request);
  }
  EXPECT_THAT(gone, testing::ElementsAre(2, 4, 3));
}

TEST(Fairness, InOrderOfArrivalTheSameFloodTakesAlmostEverything) {
  const Tenant flood{.id = 1, .prompt = kLongestPrompt, .answer = kLongestAnswer, .backlog = 500};
  const Tenant small{.id = 2, .prompt = 20, .answer = 10, .backlog = 2};
  Flood traffic(config(false), {flood, small});
  for (int i = 0; i < 20000; ++i) {
    traffic.refill();
    traffic.step();
  }
  EXPECT_GT(traffic.served(1), 50 * traffic.served(2));
}

TEST(Fairness, WeightsAreShares) {
  Flood traffic(config(), {{.id = 1, .weight = 1, .prompt = 100, .answer = 20, .backlog = 20},
                           {.id = 2, .weight = 3, .prompt = 100, .answer = 20, .backlog = 20}});
  for (int i = 0; i < 20000; ++i) {
    traffic.refill();
    traffic.step();
  }
  EXPECT_NEAR(traffic.served(2) / traffic.served(1), 3, 0.05);
}

// Time off is not saved up, and no debt is left behind either.
TEST(Fairness, WhoComesLateGetsAFairShareFromThenOn) {
  Flood traffic(config(), {{.id = 1, .prompt = 100, .answer = 20, .backlog = 20}});
  for (int i = 0; i < 5000; ++i) {
    traffic.refill();
    traffic.step();
  }
  const double before = traffic.served(1);
  traffic.include({.id = 2, .prompt = 100, .answer = 20, .backlog = 20});
  for (int i = 0; i < 5000; ++i) {
    traffic.refill();
    traffic.step();
  }
  EXPECT_LE(std::abs(traffic.served(1) - before - traffic.served(2)), kBound);
}

TEST(Fairness, CostsNoThroughput) {
  const auto steps = [](bool fairness) {
    Flood traffic(config(fairness), {});
    std::mt19937 random(7);
    for (int i = 0; i < 3000; ++i) {
      traffic.add({.id = random() % 10 < 7 ? 1u : 2 + random() % 5,
                   .prompt = static_cast<std::int32_t>(1 + random() % kLongestPrompt),
                   .answer = static_cast<std::int32_t>(1 + random() % kLongestAnswer)});
    }
    traffic.drain();
    return static_cast<double>(traffic.steps());
  };
  EXPECT_LE(steps(true) * 0.98, steps(false))
      << "at least 98 % of the throughput of first come, first served";
}

TEST(FairShare, ForgetsIdleTenantsWhenThereAreTooMany) {
  FairShare share;
  share.arrive(1, 1);
  for (TenantId tenant = 2; tenant < 20000; ++tenant) {
    share.arrive(tenant, 1);
    share.charge(tenant, 100);
    share.leave(tenant);
  }
  EXPECT_LE(share.num_accounts(), 4096u);
  EXPECT_EQ(share.service(1), 0) << "who waits is never forgotten";
}

}  // namespace
}  // namespace mlxs
