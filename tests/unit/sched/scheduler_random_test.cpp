// Random lives of many requests on tiny pools, half of them with steps ahead: every step is checked by Driver
// and by check(), every answer against the request's answer alone, and the whole run against its replay.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "unit/sched/driver.h"

namespace mlxs {
namespace {

class RandomTraffic : public testing::TestWithParam<std::uint32_t> {
 protected:
  std::uint32_t below(std::size_t limit) { return static_cast<std::uint32_t>(random_() % limit); }

  // A new prompt, or the next turn of a conversation that ended.
  std::vector<TokenId> random_prompt(const Driver& driver) {
    std::vector<TokenId> prompt;
    if (!driver.done().empty() && below(3) == 0) {
      auto turn = driver.done().begin();
      std::advance(turn, below(driver.done().size()));
      prompt = turn->second.tokens;
    } else {
      prompt = prompt_of(16 * below(4), static_cast<TokenId>(below(2)));
    }
    for (std::uint32_t i = below(40) + 1; i > 0; --i) prompt.push_back(static_cast<TokenId>(below(2)));
    return prompt;
  }

  // Most steps have one behind them, some not, and some lose it.
  Driver::Ahead ahead() {
    if (!ahead_) return Driver::Ahead::kNo;
    const std::uint32_t kind = below(20);
    return kind == 0 ? Driver::Ahead::kNo : kind == 1 ? Driver::Ahead::kDropped : Driver::Ahead::kYes;
  }

  std::vector<StepPlan> live(Driver& driver, int operations) {
    std::vector<StepPlan> plans;
    for (int i = 0; i < operations && !HasFailure(); ++i) {
      const std::uint32_t operation = below(100);
      const RequestId any = 1 + below(driver.last_id() + 1);
      if (operation < 15) {
        const std::int32_t max_new = 1 + static_cast<std::int32_t>(below(50));
        const std::int32_t pinned = pins_ && below(3) == 0 ? static_cast<std::int32_t>(below(100)) : 0;
        driver.add(random_prompt(driver), max_new, static_cast<Priority>(below(4)),
                   1 + below(static_cast<std::size_t>(max_new)), below(2), pinned);
      } else if (operation < 18) {
        driver.cancel(any);
      } else if (operation < 23) {
        driver.pause(any);
      } else if (operation < 32) {
        driver.resume(any);
      } else if (driver.step(ahead())) {
        plans.push_back(driver.plan());
      }
      EXPECT_NO_THROW(driver.scheduler().check()) << "after operation " << i;
    }
    for (RequestId id = 1; id <= driver.last_id(); ++id) driver.resume(id);
    driver.drain(ahead());
    return plans;
  }

  std::mt19937 random_;
  bool pins_ = false, ahead_ = false;
};

TEST_P(RandomTraffic, KeepsEveryPromiseAndReplaysExactly) {
  random_.seed(GetParam());
  const SchedulerConfig config{.max_running = static_cast<std::int32_t>(1 + below(12)),
                               .max_queue_depth = 20,
                               .token_budget = static_cast<std::int32_t>(1 + below(100)),
                               .max_context = 200,
                               .aging_interval = std::chrono::milliseconds(50),
                               .prefill_order = static_cast<PrefillOrder>(GetParam() % 3),
                               .swap_pages = static_cast<std::int32_t>(GetParam() % 2 * below(30)),
                               .pinned_pages = static_cast<std::int32_t>(GetParam() % 4 == 3 ? below(12) : 0),
                               .pin_ttl = std::chrono::milliseconds(2000)};
  KvPoolConfig kv{.num_pages = static_cast<std::int32_t>(4 + below(24)),
                  .prefix_cache = below(4) != 0,
                  .window = static_cast<std::int32_t>(GetParam() % 5 == 4 ? 1 + below(60) : 0)};
  if (GetParam() >= 60) {  // windows in some layers, with places for a few requests or for every page
    const bool whole = config.prefill_order == PrefillOrder::kFcfsWhole;
    const std::int32_t longest = whole ? config.max_context : config.token_budget;
    kv.window = 0;
    kv.layer_window = static_cast<std::int32_t>(1 + below(60));
    kv.num_pages += static_cast<std::int32_t>(below(40));
    const std::int64_t few = WindowPlaces::enough(kv.layer_window, 1 + below(4), longest);
    kv.num_window_pages = std::min(kv.num_pages, static_cast<std::int32_t>(few));
  }
  pins_ = config.pinned_pages > 0;
  ahead_ = GetParam() / 4 % 2 == 1;
  const auto state = random_;

  Driver driver(config, kv);
  const std::vector<StepPlan> plans = live(driver, 3000);
  for (const auto& [id, request] : driver.done())
    ASSERT_EQ(request.tokens, Driver::alone(request)) << "request " << id;
  EXPECT_EQ(driver.scheduler().stats().finished, driver.done().size());
  driver.scheduler().drop_cache();
  EXPECT_EQ(driver.scheduler().stats().kv.held, 0);
  EXPECT_EQ(driver.scheduler().stats().kv.window_held, 0);
  EXPECT_GT(driver.done().size(), 10u);
  const SchedulerStats stats = driver.scheduler().stats();
  const std::uint64_t least =
      kv.layer_window > 0 ? 5 : 10;  // who waits for a window place may start any step
  EXPECT_TRUE(ahead_ ? stats.steps_ahead > least : stats.steps_ahead == 0) << stats.steps_ahead;

  random_ = state;
  Driver replay(config, kv);
  EXPECT_EQ(live(replay, 3000), plans);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomTraffic, testing::Range(0u, 120u));

// Everything at once at 100 % KV: many requests that grow far beyond the pool together, pausing at random.
TEST(FullPool, NeverDeadlocks) {
  std::uint64_t preemptions = 0, copied = 0;
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    Driver driver({.max_running = 16, .token_budget = 32, .swap_pages = seed % 4 < 2 ? 0 : 20},
                  {.num_pages = 12, .prefix_cache = seed % 2 == 0});
    for (TokenId key = 0; key < 30; ++key) {
      driver.add(prompt_of(1 + random() % 60, key), static_cast<std::int32_t>(60 + random() % 60),
                 static_cast<Priority>(random() % 4));
    }
    driver.drain_pausing(random, 30);
    ASSERT_EQ(driver.done().size(), 30u);
    preemptions += driver.preemptions();
    copied += driver.copied_pages();
  }
  EXPECT_GT(preemptions, 100u);
  EXPECT_GT(copied, 100u) << "of pages to the host and back";
}

}  // namespace
}  // namespace mlxs
