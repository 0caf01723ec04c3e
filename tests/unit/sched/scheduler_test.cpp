// The Scheduler's contract, promise by promise. Driver checks every plan against an exact model of the KV.
#include "sched/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "mlxs/error.h"
#include "unit/sched/driver.h"

namespace mlxs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<RequestId> rows_of(const StepPlan& plan) {
  std::vector<RequestId> ids;
  for (const PlannedSpan& span : plan.spans) ids.push_back(span.request);
  return ids;
}

TEST(Scheduler, RunsOneRequestFromPrefillToItsLastToken) {
  Driver driver({}, {.num_pages = 16});
  ASSERT_EQ(driver.add(prompt_of(20), 3), std::nullopt);
  EXPECT_FALSE(driver.scheduler().idle());
  EXPECT_EQ(driver.scheduler().stats().waiting, 1);

  ASSERT_TRUE(driver.step());
  const PlannedSpan& prefill = driver.plan().spans.at(0);
  EXPECT_EQ(driver.plan().step, 1u);
  EXPECT_EQ(driver.plan().decode_rows, 0);
  EXPECT_EQ(prefill.start, 0);
  EXPECT_EQ(prefill.count, 20);
  EXPECT_TRUE(prefill.samples);
  EXPECT_EQ(prefill.pages.size(), 2u);
  EXPECT_EQ(driver.scheduler().stats().running, 1);

  ASSERT_TRUE(driver.step());
  EXPECT_EQ(driver.plan().decode_rows, 1);
  EXPECT_EQ(driver.plan().spans.at(0).start, 20);
  ASSERT_TRUE(driver.step());
  EXPECT_TRUE(driver.scheduler().idle());
  EXPECT_FALSE(driver.step());

  const SchedulerStats stats = driver.scheduler().stats();
  EXPECT_EQ(stats.steps, 3u);
  EXPECT_EQ(stats.admitted, 1u);
  EXPECT_EQ(stats.finished, 1u);
  EXPECT_EQ(stats.prompt_tokens, 20u);
  EXPECT_EQ(stats.generated_tokens, 3u);
  EXPECT_EQ(stats.kv.held, 0);
  EXPECT_EQ(stats.kv.cached, 2) << "a full page and a begun one";
}

TEST(Scheduler, APromptAskedAgainComputesOneToken) {
  Driver driver({}, {.num_pages = 16});
  ASSERT_EQ(driver.add(prompt_of(2 * kPageTokens + 12), 1), std::nullopt);
  while (driver.step()) {
  }
  ASSERT_EQ(driver.add(prompt_of(2 * kPageTokens + 12), 3), std::nullopt);
  ASSERT_TRUE(driver.step());
  EXPECT_EQ(driver.plan().branches.size(), 1u) << "the begun page is copied: the request goes on to write it";
  EXPECT_EQ(driver.plan().spans.at(0).start, 2 * kPageTokens + 11);
  EXPECT_EQ(driver.plan().spans.at(0).count, 1);
  while (driver.step()) {
  }
  EXPECT_EQ(driver.scheduler().stats().cached_prompt_tokens, 2u * kPageTokens + 11);
}

TEST(Scheduler, ABegunPageServesAsFarAsPromptsAreAlike) {
  Driver driver({}, {.num_pages = 16});
  ASSERT_EQ(driver.add(prompt_of(kPageTokens + 12), 2), std::nullopt);
  while (driver.step()) {
  }
  std::vector<TokenId> other = prompt_of(kPageTokens + 12);
  other[kPageTokens + 7] += 1;
  ASSERT_EQ(driver.add(other, 2), std::nullopt);
  ASSERT_TRUE(driver.step());
  EXPECT_EQ(driver.plan().spans.at(0).start, kPageTokens + 7);
  while (driver.step()) {
  }
  other[kPageTokens + 2] += 1;  // fewer than a copy is worth
  ASSERT_EQ(driver.add(other, 2), std::nullopt);
  ASSERT_TRUE(driver.step());
  EXPECT_EQ(driver.plan().spans.at(0).start, kPageTokens);
}

TEST(Scheduler, RefusesConfigurationsThatCannotRun) {
  KvPool pool({.num_pages = 4});
  EXPECT_THROW(Scheduler({.max_running = 0}, pool), Error);
  EXPECT_THROW(Scheduler({.max_queue_depth = 0}, pool), Error);
  EXPECT_THROW(Scheduler({.token_budget = 0}, pool), Error);
  EXPECT_THROW(Scheduler({.max_context = 0}, pool), Error);
  EXPECT_THROW(Scheduler({.aging_interval = Duration::zero()}, pool), Error);
}

TEST(Scheduler, RefusesAtOnceWhatCanNeverFit) {
  Driver driver({.max_context = 100}, {.num_pages = 4});  // 64 tokens of pages
  const auto cause = [&](std::size_t prompt, std::int32_t max_new) {
    const auto refusal = driver.add(prompt_of(prompt), max_new);
    return refusal ? std::optional(refusal->cause) : std::nullopt;
  };
  EXPECT_EQ(cause(60, 5), RefusalCause::kTooLong) << "pages";
  EXPECT_EQ(cause(60, 41), RefusalCause::kTooLong) << "context";
  EXPECT_EQ(cause(1, INT32_MAX), RefusalCause::kTooLong) << "no overflow";
  EXPECT_EQ(cause(60, 4), std::nullopt) << "exactly fits";
  EXPECT_EQ(driver.scheduler().stats().refused, 3u);
  driver.drain();
}

TEST(Scheduler, RefusesBeyondTheQueueAndSaysWhenToComeBack) {
  Driver driver({.max_running = 1, .max_queue_depth = 2}, {.num_pages = 64});
  driver.add(prompt_of(10), 50);
  driver.step();
  driver.add(prompt_of(10), 50);
  driver.add(prompt_of(10), 50);
  auto refusal = driver.add(prompt_of(10), 50);
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->cause, RefusalCause::kQueueFull);
  EXPECT_EQ(refusal->request, driver.last_id());
  EXPECT_EQ(refusal->retry_after_s, 1.0) << "nothing measured yet";
  for (int i = 0; i < 50; ++i) driver.step();  // the first ends after 50 steps of 10 ms
  driver.add(prompt_of(10), 50);
  refusal = driver.add(prompt_of(10), 50);
  ASSERT_TRUE(refusal);
  EXPECT_NEAR(refusal->retry_after_s, 0.5, 1e-9);
  driver.drain();
}

TEST(Scheduler, EndsAtMaxNewTokensEvenIfTheEngineDoesNotSaySo) {
  KvPool pool({.num_pages = 16});
  Scheduler scheduler({}, pool);
  scheduler.add({.id = 7, .prompt = prompt_of(10), .max_new_tokens = 3});
  StepPlan plan;
  for (std::uint64_t step = 1; step <= 3; ++step) {
    scheduler.plan({}, plan);
    ASSERT_EQ(plan.step, step);
    scheduler.commit({.step = step, .spans = {{.request = 7, .token = 5}}});
  }
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(scheduler.stats().generated_tokens, 3u);
}

TEST(Scheduler, AFailedSpanEndsItsRequestAndLeavesNoKv) {
  KvPool pool({.num_pages = 16});
  Scheduler scheduler({.token_budget = 64}, pool);
  scheduler.add({.id = 1, .prompt = prompt_of(40, 1), .max_new_tokens = 3});
  scheduler.add({.id = 2, .prompt = prompt_of(100, 2), .max_new_tokens = 3});
  StepPlan plan;
  scheduler.plan({}, plan);
  ASSERT_THAT(rows_of(plan), ElementsAre(1, 2));
  ASSERT_FALSE(plan.spans[1].samples);
  scheduler.commit(
      {.step = 1, .spans = {{.request = 1, .finished = true}, {.request = 2, .finished = true}}});
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(pool.stats().free, 16) << "nothing cached either";
  scheduler.check();
}

TEST(Scheduler, SaysWhichPromiseOfTheCallerWasBroken) {
  KvPool pool({.num_pages = 16});
  Scheduler scheduler({}, pool);
  EXPECT_THROW(scheduler.commit({.step = 1, .spans = {}}), Error) << "nothing planned";
  EXPECT_THROW(scheduler.add({.id = 1, .prompt = {}, .max_new_tokens = 1}), Error);
  EXPECT_THROW(scheduler.add({.id = 1, .prompt = {3}, .max_new_tokens = 0}), Error);
  scheduler.add({.id = 1, .prompt = prompt_of(10), .max_new_tokens = 3});
  EXPECT_THROW(scheduler.add({.id = 1, .prompt = prompt_of(10), .max_new_tokens = 3}), Error) << "same id";
  StepPlan plan;
  scheduler.plan({}, plan);
  EXPECT_THROW(scheduler.plan({}, plan), Error) << "planned twice";
  EXPECT_THROW(scheduler.commit({.step = 2, .spans = {{.request = 1, .token = 5}}}), Error) << "wrong step";
  EXPECT_THROW(scheduler.commit({.step = 1, .spans = {}}), Error) << "missing span";
  EXPECT_THROW(scheduler.commit({.step = 1, .spans = {{.request = 2, .token = 5}}}), Error)
      << "wrong request";
  EXPECT_THROW(scheduler.commit({.step = 1, .spans = {{.request = 1}}}), Error) << "missing token";
  scheduler.commit({.step = 1, .spans = {{.request = 1, .token = 5}}});
  scheduler.cancel(99);
  scheduler.pause(99);
  scheduler.resume(99);
  EXPECT_EQ(scheduler.cached_prefix(99), 0);
}

// --- chunked prefill ---

TEST(Scheduler, ChunksALongPromptAtPageBoundariesBehindTheDecodes) {
  Driver driver({.token_budget = 40}, {.num_pages = 64});
  driver.add(prompt_of(8, 1), 20);
  driver.step();
  driver.add(prompt_of(110, 2), 5);
  std::vector<std::int32_t> starts;
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(driver.step());
    ASSERT_THAT(rows_of(driver.plan()), ElementsAre(1, 2));
    starts.push_back(driver.plan().spans[1].start);
    EXPECT_EQ(driver.plan().spans[1].samples, i == 3);
  }
  EXPECT_THAT(starts, ElementsAre(0, 32, 64, 96));  // 39 tokens are left: two pages a step
  driver.drain();
}

TEST(Scheduler, AShortPromptIsNotStuckBehindALongOne) {
  Driver driver({.token_budget = 128, .max_context = 16384}, {.num_pages = 1024});
  driver.add(prompt_of(8000, 1), 5);
  for (int i = 0; i < 3; ++i) driver.step();
  driver.add(prompt_of(60, 2), 5);
  driver.add(prompt_of(4000, 3), 5);
  driver.step();
  EXPECT_THAT(rows_of(driver.plan()), ElementsAre(2, 1)) << "the shortest first, then the oldest";
  EXPECT_EQ(driver.live().at(2).first_token_step, driver.live().at(2).first_step)
      << "its first token came at once";
  driver.drain();
}

TEST(Scheduler, ALongPromptAdvancesByHalfTheBudgetUnderAFloodOfShortOnes) {
  Driver driver({.max_running = 256, .token_budget = 128, .max_context = 16384}, {.num_pages = 2048});
  driver.add(prompt_of(3200, 1), 1);
  driver.step();
  int steps = 1;
  for (TokenId key = 2; driver.live().contains(1); ++key, ++steps) {
    driver.add(prompt_of(100, key), 1, Priority::kCritical);  // more than the other half of the budget
    driver.add(prompt_of(90, 1000 + key), 1, Priority::kCritical);
    ASSERT_TRUE(driver.step());
    ASSERT_LE(steps, 3200 / 64);
  }
  EXPECT_GT(driver.done().size(), 20u) << "and the flood advances too";
}

TEST(Scheduler, ABudgetOfOneTokenStillFinishesEverything) {
  Driver driver({.max_running = 8, .token_budget = 1}, {.num_pages = 64});
  for (TokenId key = 0; key < 4; ++key) driver.add(prompt_of(20, key), 3);
  driver.drain();
  EXPECT_EQ(driver.done().size(), 4u);
}

TEST(Scheduler, NeverRunsMoreRequestsThanTheBudgetHasRows) {
  Driver driver({.max_running = 64, .token_budget = 8}, {.num_pages = 256});
  for (TokenId key = 0; key < 20; ++key) driver.add(prompt_of(4, key), 30);
  for (int i = 0; i < 20; ++i) {
    driver.step();
    EXPECT_LE(driver.scheduler().stats().running, 8);
  }
  driver.drain();
}

// --- prefix cache ---

TEST(Scheduler, FindsTheSharedPrefixAtAdmission) {
  Driver driver({}, {.num_pages = 64});
  driver.add(prompt_of(100), 2);
  driver.drain();
  driver.add(prompt_of(100), 2);
  driver.step();
  EXPECT_EQ(driver.plan().spans.at(0).start, 96);
  EXPECT_EQ(driver.scheduler().cached_prefix(2), 96);
  driver.drain();
  EXPECT_EQ(driver.scheduler().stats().cached_prompt_tokens, 96u);
  EXPECT_EQ(driver.scheduler().stats().prompt_tokens, 200u);
}

TEST(Scheduler, FindsTheAnswerOfTheTurnBefore) {
  Driver driver({}, {.num_pages = 64});
  driver.add(prompt_of(30), 40);
  driver.drain();
  std::vector<TokenId> next_turn =
      driver.done().at(1).tokens;  // 30 + 40 tokens; the last one's KV was never needed
  next_turn.insert(next_turn.end(), 20, 7);
  driver.add(next_turn, 2);
  driver.step();
  EXPECT_EQ(driver.scheduler().cached_prefix(2), 64);
  driver.drain();
}

TEST(Scheduler, TenantsDoNotShare) {
  Driver driver({}, {.num_pages = 64});
  driver.add(prompt_of(100), 2, Priority::kNormal, 0, 1);
  driver.drain();
  driver.add(prompt_of(100), 2, Priority::kNormal, 0, 2);
  driver.step();
  EXPECT_EQ(driver.scheduler().cached_prefix(2), 0);
  driver.drain();
}

// A burst behind one cold system prompt: its pages are computed once, not once a request.
TEST(Scheduler, ABurstComputesItsSharedPrefixOnce) {
  Driver driver({.token_budget = 128}, {.num_pages = 512});
  for (TokenId key = 0; key < 16; ++key) {
    std::vector<TokenId> prompt = prompt_of(320);
    prompt.insert(prompt.end(), 10, 50 + key);
    driver.add(prompt, 2);
  }
  driver.drain();
  // Each request computes its own ten tokens and its one decode row; the first one the 320 before.
  EXPECT_EQ(driver.computed_tokens(), 320u + 16 * (10 + 1));
  EXPECT_EQ(driver.scheduler().cached_prefix(1), 0) << "ended";
  EXPECT_EQ(driver.scheduler().stats().cached_prompt_tokens, 15u * 320);
}

TEST(Scheduler, WithoutPrefixCacheEveryTokenIsComputedOnce) {
  Driver driver({.token_budget = 64}, {.num_pages = 512, .prefix_cache = false});
  for (int i = 0; i < 10; ++i) driver.add(prompt_of(100), 10);
  driver.drain();
  EXPECT_EQ(driver.computed_tokens(), 10u * (100 + 9));
  EXPECT_EQ(driver.scheduler().stats().kv.free, 512);
}

// --- queue ---

TEST(Scheduler, AdmitsByTierThenByOrder) {
  Driver driver({.max_running = 1}, {.num_pages = 64});
  driver.add(prompt_of(10), 5);
  driver.step();
  driver.add(prompt_of(10), 2, Priority::kLow);       // 2
  driver.add(prompt_of(10), 2, Priority::kNormal);    // 3
  driver.add(prompt_of(10), 2, Priority::kCritical);  // 4
  driver.add(prompt_of(10), 2, Priority::kHigh);      // 5
  driver.add(prompt_of(10), 2, Priority::kCritical);  // 6
  driver.drain();
  std::vector<std::pair<std::uint64_t, RequestId>> order;
  for (const auto& [id, request] : driver.done()) order.emplace_back(request.first_step, id);
  std::ranges::sort(order);
  std::vector<RequestId> ids;
  for (const auto& [step, id] : order) ids.push_back(id);
  EXPECT_THAT(ids, ElementsAre(1, 4, 6, 5, 3, 2));
}

// The longest wait of a request of each tier, in seconds, while `flood` keeps every slot busy.
double wait_under_flood(Priority priority, Priority flood) {
  Driver driver({.max_running = 2, .max_queue_depth = 100000, .aging_interval = std::chrono::seconds(1)},
                {.num_pages = 64});
  const auto add_flood = [&] {
    while (driver.scheduler().stats().waiting < 20) driver.add(prompt_of(4), 10, flood);
  };
  add_flood();
  driver.step();
  driver.add(prompt_of(4, 1), 10, priority);
  const RequestId id = driver.last_id();
  const TimePoint start = driver.now();
  while (driver.live().contains(id) && driver.live().at(id).first_step == 0) {
    add_flood();
    if (!driver.step() || driver.now() - start > std::chrono::seconds(100)) break;
  }
  return to_seconds(driver.now() - start);
}

TEST(Scheduler, NoTierStarvesUnderAFloodOfAnyOther) {
  // A flood keeps 20 requests waiting, two run for 0.1 s each: 1 s to serve what waits at any time.
  for (const Priority flood : {Priority::kCritical, Priority::kHigh, Priority::kNormal, Priority::kLow}) {
    for (const Priority priority :
         {Priority::kCritical, Priority::kHigh, Priority::kNormal, Priority::kLow}) {
      const int tiers_to_climb = std::max(0, static_cast<int>(priority) - static_cast<int>(flood));
      EXPECT_LE(wait_under_flood(priority, flood), tiers_to_climb * 1.0 + 1.2)
          << "tier " << static_cast<int>(priority) << " under " << static_cast<int>(flood);
    }
  }
  EXPECT_GE(wait_under_flood(Priority::kLow, Priority::kCritical), 3.0) << "ageing is what saves it";
}

TEST(Scheduler, ALongPromptAtTheFrontIsNotOvertakenForever) {
  Driver driver({.max_running = 8, .aging_interval = std::chrono::seconds(1)}, {.num_pages = 20});
  for (TokenId key = 0; key < 3; ++key) driver.add(prompt_of(60, key), 20);
  driver.step();
  driver.add(prompt_of(280, 9), 5);  // 18 pages: needs all others to end
  const RequestId large = driver.last_id();
  const TimePoint start = driver.now();
  for (TokenId key = 10; driver.live().at(large).first_step == 0; ++key) {
    driver.add(prompt_of(10, key), 20);
    ASSERT_TRUE(driver.step());
    ASSERT_LT(driver.now() - start, std::chrono::seconds(2)) << "an interval, and those that run then";
    if (driver.live().at(large).first_step != 0) break;
    for (const RequestId id : driver.plan().admitted) {
      EXPECT_NE(driver.scheduler().admitted_by(id), AdmittedBy::kInTurn) << id << " went before it";
    }
  }
  EXPECT_GT(driver.scheduler().stats().overtakings, 10u) << "short ones need not wait for it";
  driver.drain();
}

// --- preemption ---

TEST(Scheduler, AFullPoolPreemptsAndEveryAnswerStaysTheSame) {
  for (const bool prefix_cache : {true, false}) {
    Driver driver({.max_running = 16, .token_budget = 64}, {.num_pages = 24, .prefix_cache = prefix_cache});
    for (TokenId key = 0; key < 12; ++key) driver.add(prompt_of(20, key), 150);
    driver.drain();
    ASSERT_EQ(driver.done().size(), 12u);
    EXPECT_GT(driver.preemptions(), 0u);
    EXPECT_EQ(driver.scheduler().stats().preemptions, driver.preemptions());
    EXPECT_EQ(driver.scheduler().stats().admitted, 12u) << "an admission is counted once";
    EXPECT_EQ(driver.scheduler().stats().kv.prefix_queries, 12u * 20) << "and so is a look-up";
    EXPECT_EQ(driver.scheduler().stats().kv.prefix_hits, 0u) << "finding its own pages again is no hit";
    for (const auto& [id, request] : driver.done()) EXPECT_EQ(request.tokens, Driver::alone(request));
  }
}

// What preemptions cost, in tokens computed a second time.
std::uint64_t computed_again(std::int32_t swap_pages, bool prefix_cache) {
  Driver driver({.max_running = 16, .token_budget = 64, .swap_pages = swap_pages},
                {.num_pages = 24, .prefix_cache = prefix_cache});
  for (TokenId key = 0; key < 12; ++key) driver.add(prompt_of(20, key), 150);
  driver.drain();
  EXPECT_GT(driver.preemptions(), 0u);
  for (const auto& [id, request] : driver.done()) EXPECT_EQ(request.tokens, Driver::alone(request));
  const SchedulerStats stats = driver.scheduler().stats();
  EXPECT_EQ(stats.swap_slots_used, 0);
  EXPECT_EQ(stats.swaps > 0, swap_pages > 0);
  return driver.computed_tokens() - 12 * (20 + 150 - 1);
}

TEST(Scheduler, WhatIsSwappedOutIsNotComputedAgain) {
  for (const bool prefix_cache : {true, false}) {
    EXPECT_GT(computed_again(0, prefix_cache), 100u);
    EXPECT_EQ(computed_again(100, prefix_cache), 0u);
    const std::uint64_t little_room = computed_again(8, prefix_cache);
    EXPECT_GT(little_room, 0u);
    EXPECT_LT(little_room, computed_again(0, prefix_cache));
  }
}

TEST(Scheduler, DoesNotSwapWhereComputingIsCheaper) {
  KvPool pool({.num_pages = 12, .prefix_cache = false});
  Scheduler scheduler({.token_budget = 64, .swap_pages = 100}, pool);
  for (RequestId id = 1; id <= 6; ++id)
    scheduler.add({.id = id, .prompt = prompt_of(20), .max_new_tokens = 150});
  StepPlan plan;
  std::uint64_t swapped_early = 0;
  for (int step = 0; !scheduler.idle(); ++step) {
    scheduler.plan({}, plan);
    StepResult result{.step = plan.step, .spans = {}};
    for (const PlannedSpan& span : plan.spans)
      result.spans.push_back({.request = span.request, .token = span.samples ? 7 : -1});
    result.seconds = 0.005 + 1e-4 * plan.total_tokens;
    // A page takes as long as 100 tokens, which the first swap finds out.
    result.copy_seconds = 0.01 * static_cast<double>(plan.swap_out.size() + plan.swap_in.size());
    if (swapped_early == 0) swapped_early = scheduler.stats().swaps;
    scheduler.commit(result);
    scheduler.check();
  }
  EXPECT_GT(scheduler.stats().preemptions, 2u);
  EXPECT_EQ(scheduler.stats().swaps, swapped_early) << "those of one step, before anything was measured";
}

TEST(Scheduler, OneRequestMayFillThePoolToTheLastToken) {
  Driver driver({}, {.num_pages = 8});
  driver.add(prompt_of(28), 100);
  driver.drain();
  EXPECT_EQ(driver.preemptions(), 0u);
  EXPECT_EQ(driver.done().size(), 1u);
}

TEST(Scheduler, PreemptsTheWorstTierFirstThenTheLeastWork) {
  Driver driver({}, {.num_pages = 24, .prefix_cache = false});
  driver.add(prompt_of(60, 1), 100, Priority::kHigh);    // 4 pages, much work
  driver.add(prompt_of(30, 2), 100, Priority::kNormal);  // 2 pages
  driver.add(prompt_of(10, 3), 100, Priority::kNormal);  // 1 page: the least work
  driver.add(prompt_of(20, 4), 100, Priority::kCritical);
  std::vector<RequestId> preempted;
  while (preempted.size() < 2 && driver.step()) {
    preempted.insert(preempted.end(), driver.plan().preempted.begin(), driver.plan().preempted.end());
  }
  EXPECT_THAT(preempted, ElementsAre(3, 2));
  driver.drain();
}

TEST(Scheduler, APreemptedRequestComesBackBeforeOthers) {
  Driver driver({.max_running = 3}, {.num_pages = 20, .prefix_cache = false});
  for (TokenId key = 1; key <= 3; ++key) driver.add(prompt_of(40, key), 120);
  driver.step();
  driver.add(prompt_of(4, 9), 2);  // waits for a slot, and would fit into the pages that a preemption frees
  const RequestId waiting = driver.last_id();
  while (driver.preemptions() == 0) ASSERT_TRUE(driver.step());
  const RequestId victim = driver.plan().preempted.at(0);
  while (driver.live().at(victim).reset) {
    EXPECT_EQ(driver.live().at(waiting).first_step, 0u);
    ASSERT_TRUE(driver.step());
  }
  driver.drain();
  EXPECT_EQ(driver.done().at(victim).tokens, Driver::alone(driver.done().at(victim)));
}

// The third is the victim of the first two's growth, comes back when the second ends, and computes its long
// prompt again by two tokens a step. When the first needs pages before that is done, it must not take them
// from there again (Driver fails if a request is preempted twice without a token in between).
TEST(Scheduler, ARecoveringRequestIsSparedUntilItSampled) {
  Driver driver({.token_budget = 3}, {.num_pages = 20, .prefix_cache = false});
  driver.add(prompt_of(10, 1), 200);
  driver.add(prompt_of(10, 2), 75);
  driver.add(prompt_of(160, 3), 10, Priority::kLow);
  std::vector<RequestId> preempted;
  while (driver.step()) {
    preempted.insert(preempted.end(), driver.plan().preempted.begin(), driver.plan().preempted.end());
  }
  EXPECT_THAT(preempted, ElementsAre(3, 1));
  EXPECT_EQ(driver.done().size(), 3u);
}

TEST(Scheduler, AdmitsAsSoonAsPagesComeFreeWhileOthersRun) {
  Driver driver({}, {.num_pages = 20, .prefix_cache = false});
  driver.add(prompt_of(100, 1), 4);
  driver.add(prompt_of(10, 2), 100);
  driver.step();
  driver.add(prompt_of(140, 3), 4);
  while (driver.live().contains(1)) ASSERT_TRUE(driver.step());
  EXPECT_EQ(driver.live().at(3).first_step, 0u);
  ASSERT_TRUE(driver.step());
  EXPECT_THAT(rows_of(driver.plan()), ElementsAre(2, 3));
  driver.drain();
}

// --- pause, cancel ---

TEST(Scheduler, APausedRequestKeepsItsPagesAndGetsNoRows) {
  Driver driver({}, {.num_pages = 64});
  driver.add(prompt_of(40, 1), 20);
  driver.add(prompt_of(40, 2), 20);
  driver.step();
  driver.pause(1);
  driver.pause(1);
  const std::int32_t held = driver.pool().stats().held;
  driver.step();
  EXPECT_THAT(rows_of(driver.plan()), ElementsAre(2));
  EXPECT_GE(driver.pool().stats().held, held);
  EXPECT_EQ(driver.scheduler().stats().paused, 1);
  EXPECT_EQ(driver.scheduler().stats().running, 1);
  for (int i = 0; i < 50; ++i) driver.step();
  EXPECT_FALSE(driver.step());
  EXPECT_FALSE(driver.scheduler().idle());
  driver.resume(1);
  driver.step();
  EXPECT_EQ(driver.plan().decode_rows, 1) << "it goes on where it was";
  driver.drain();
  EXPECT_EQ(driver.scheduler().stats().paused, 0);
}

TEST(Scheduler, AWaitingRequestCanBePausedAndKeepsItsPlace) {
  Driver driver({.max_running = 1}, {.num_pages = 64});
  for (TokenId key = 1; key <= 3; ++key) driver.add(prompt_of(10, key), 2);
  driver.pause(1);
  driver.step();
  EXPECT_THAT(rows_of(driver.plan()), ElementsAre(2));
  driver.resume(1);
  driver.step();
  driver.step();
  EXPECT_THAT(rows_of(driver.plan()), ElementsAre(1));
  driver.drain();
}

TEST(Scheduler, PausedRequestsGiveUpSlotsToThoseThatWait) {
  Driver driver({.max_running = 2}, {.num_pages = 64});
  driver.add(prompt_of(40, 1), 20);
  driver.add(prompt_of(40, 2), 20);
  driver.step();
  driver.pause(1);
  driver.add(prompt_of(10, 3), 5);
  driver.add(prompt_of(10, 4), 5);
  driver.step();
  EXPECT_THAT(driver.plan().preempted, ElementsAre(1));
  EXPECT_THAT(driver.plan().preempted_for, ElementsAre(3));
  EXPECT_THAT(driver.plan().admitted, ElementsAre(3));
  EXPECT_EQ(driver.plan().blocked, QueueBlock::kSlots);  // the fourth
  EXPECT_THAT(rows_of(driver.plan()), ElementsAre(2, 3));
  driver.resume(1);
  driver.drain();
  EXPECT_EQ(driver.done().at(1).tokens, Driver::alone(driver.done().at(1)));
}

TEST(Scheduler, PausedRequestsGiveUpPagesOnlyIfNothingElseRuns) {
  Driver driver({}, {.num_pages = 12, .prefix_cache = false});
  driver.add(prompt_of(70, 1), 20);
  driver.add(prompt_of(20, 2), 20);
  driver.step();
  driver.pause(1);
  driver.add(prompt_of(150, 3), 20);  // ten pages
  for (int i = 0; i < 10; ++i) driver.step();
  EXPECT_THAT(driver.plan().preempted, IsEmpty());
  EXPECT_THAT(rows_of(driver.plan()), ElementsAre(2));
  EXPECT_EQ(driver.plan().blocked, QueueBlock::kPages);
  while (driver.live().contains(2)) ASSERT_TRUE(driver.step());
  driver.step();
  EXPECT_EQ(driver.plan().blocked, QueueBlock::kNothing);
  EXPECT_THAT(driver.plan().preempted, ElementsAre(1));
  EXPECT_THAT(rows_of(driver.plan()), ElementsAre(3));
  driver.resume(1);
  driver.drain();
  EXPECT_EQ(driver.done().size(), 3u);
}

TEST(Scheduler, AGrowingRequestTakesPagesOfPausedOnesIfItIsAlone) {
  Driver driver({}, {.num_pages = 12, .prefix_cache = false});
  driver.add(prompt_of(70, 1), 20);
  driver.add(prompt_of(20, 2), 160);
  driver.step();
  driver.pause(1);
  while (driver.live().contains(2)) ASSERT_TRUE(driver.step());
  EXPECT_EQ(driver.preemptions(), 1u);
  driver.resume(1);
  driver.drain();
}

TEST(Scheduler, CancelsInAnyState) {
  Driver driver({.max_running = 3, .token_budget = 64}, {.num_pages = 32});
  driver.add(prompt_of(10, 1), 50);
  driver.add(prompt_of(300, 2), 50);
  driver.add(prompt_of(20, 3), 50);
  driver.add(prompt_of(20, 4), 50);
  driver.step();
  driver.pause(3);
  EXPECT_EQ(driver.scheduler().stats().waiting, 1);
  driver.cancel(4);  // waiting
  driver.cancel(3);  // paused
  driver.cancel(2);  // in the middle of its prompt
  driver.cancel(1);  // decoding
  driver.cancel(1);  // gone
  EXPECT_TRUE(driver.scheduler().idle());
  EXPECT_EQ(driver.scheduler().stats().paused, 0);
  EXPECT_EQ(driver.pool().stats().held, 0);
  driver.scheduler().check();
}

TEST(Scheduler, FiveHundredRandomCancelsLeaveNoPageHeld) {
  Driver driver({.max_running = 8, .token_budget = 64}, {.num_pages = 40});
  std::mt19937 random(5);
  int cancels = 0;
  while (cancels < 500) {
    while (driver.live().size() < 12)
      driver.add(prompt_of(1 + random() % 120, static_cast<TokenId>(random() % 9)), 60);
    driver.step();
    if (random() % 3 == 0) continue;
    auto victim = driver.live().begin();
    std::advance(victim, random() % driver.live().size());
    driver.cancel(victim->first);
    driver.scheduler().check();
    ++cancels;
  }
  while (!driver.live().empty()) driver.cancel(driver.live().begin()->first);
  EXPECT_TRUE(driver.scheduler().idle());
  EXPECT_EQ(driver.pool().stats().held, 0);
  EXPECT_EQ(driver.pool().available(), 40);
  driver.scheduler().check();
}

TEST(Scheduler, GivesItsPagesBackWhenItIsDestroyed) {
  KvPool pool({.num_pages = 16});
  {
    Scheduler scheduler({}, pool);
    scheduler.add({.id = 1, .prompt = prompt_of(40), .max_new_tokens = 3});
    StepPlan plan;
    scheduler.plan({}, plan);
    EXPECT_EQ(pool.stats().held, 3);
  }
  EXPECT_EQ(pool.stats().held, 0);
  pool.check();
}

}  // namespace
}  // namespace mlxs
