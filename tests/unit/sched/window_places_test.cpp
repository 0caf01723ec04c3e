// Models of which some layers have a window: requests hold few window places however long they are, and the
// places bound how many run.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <random>

#include "mlxs/error.h"
#include "unit/sched/driver.h"

namespace mlxs {
namespace {

constexpr std::int32_t kWindow = 40, kPast = 4;  // places that what a row sees of its past takes at most

TEST(WindowPlaces, ALongAnswerHoldsAsManyAsItsWindowTakes) {
  Driver driver({.max_running = 2, .token_budget = 64, .max_context = 1600},
                {.num_pages = 200, .layer_window = kWindow, .num_window_pages = 24});
  driver.add(prompt_of(500, 1), 1000);
  driver.add(prompt_of(300, 2), 900);
  int long_steps = 0;
  while (driver.step()) {
    const KvPoolStats kv = driver.scheduler().stats().kv;
    EXPECT_LE(kv.window_held, 2 * kPast);
    EXPECT_LE(kv.window_held + kv.window_idle, 24);
    long_steps += kv.held > 100 ? 1 : 0;
  }
  EXPECT_GT(long_steps, 300) << "of more than 1600 tokens together";
  EXPECT_EQ(driver.done().size(), 2u);
  const KvPoolStats kv = driver.scheduler().stats().kv;
  EXPECT_EQ(kv.window_held, 0);
  EXPECT_GT(kv.window_passed, 150u);
}

// The next turn of a conversation finds all of it, another one that parts early finds nothing: what its
// window would need has long made room. It computes the prompt again and the pages are shared once more.
TEST(WindowPlaces, APrefixIsFoundAsFarAsItsWindowIsThere) {
  Driver driver({.max_running = 1, .token_budget = 64, .max_context = 1600},
                {.num_pages = 200, .layer_window = kWindow, .num_window_pages = 16});
  driver.add(prompt_of(800, 1), 20);
  driver.drain();
  std::vector<TokenId> next = driver.done().at(1).tokens;
  EXPECT_EQ(driver.pool().peek_prefix(next).tokens, 816) << "its last token's KV is not computed";
  next.resize(400);
  EXPECT_EQ(driver.pool().peek_prefix(next).tokens, 0);
  driver.add(next, 4);
  driver.drain();
  EXPECT_EQ(driver.scheduler().stats().cached_prompt_tokens, 0u);
  EXPECT_EQ(driver.scheduler().stats().kv.misses[static_cast<std::size_t>(MissReason::kWindow)], 1u);
  EXPECT_EQ(driver.scheduler().stats().kv.cached, 51) << "the second's pages are the first's again";
  next.push_back(3);
  EXPECT_EQ(driver.pool().peek_prefix(next).tokens, 400) << "the second left its window's places";
}

// Five long conversations one after another, each of which passes more places than there are: the next turn
// of every one finds it.
TEST(WindowPlaces, TheEndsOfConversationsOutliveWhatWasPassed) {
  Driver driver({.max_running = 1, .token_budget = 64, .max_context = 1600},
                {.num_pages = 200, .layer_window = kWindow, .num_window_pages = 56});
  for (TokenId key = 1; key <= 5; ++key) driver.add(prompt_of(560, key), 60);
  driver.drain();
  EXPECT_GT(driver.scheduler().stats().kv.window_evictions, 100u);
  for (const auto& [id, request] : driver.done()) {
    const auto found = [&](std::size_t differs) {
      std::vector<TokenId> next = request.tokens;
      next[differs] = 5;
      return driver.pool().peek_prefix(next).tokens;
    };
    EXPECT_EQ(found(619), 608) << "conversation " << id;
    EXPECT_EQ(found(565), 560) << "another answer, or none of its thoughts";
    EXPECT_EQ(found(555), 544) << "what the template put behind the prompt is gone";
  }
}

// Long prompts with a common beginning: the second computes it again, and from then on it is kept where they
// part.
TEST(WindowPlaces, WherePromptsPartIsKept) {
  Driver driver({.max_running = 1, .token_budget = 64, .max_context = 1600},
                {.num_pages = 400, .layer_window = kWindow, .num_window_pages = 40});
  const auto add = [&](TokenId key) {
    std::vector<TokenId> prompt = prompt_of(200, 1);
    std::ranges::copy(prompt_of(800, key), std::back_inserter(prompt));
    driver.add(std::move(prompt), 4);
    driver.drain();
  };
  add(2);
  add(3);
  const auto stats = [&] { return driver.scheduler().stats(); };
  EXPECT_EQ(stats().kv.misses[static_cast<std::size_t>(MissReason::kWindow)], 1u);
  EXPECT_EQ(stats().cached_prompt_tokens, 0u);
  for (TokenId key = 4; key < 8; ++key) add(key);
  EXPECT_EQ(stats().kv.misses[static_cast<std::size_t>(MissReason::kWindow)], 1u);
  EXPECT_EQ(stats().cached_prompt_tokens, 4u * 192);
}

TEST(WindowPlaces, BoundHowManyRun) {
  const std::int32_t places = static_cast<std::int32_t>(WindowPlaces::enough(kWindow, 3, 32));
  Driver driver({.max_running = 16, .token_budget = 32},
                {.num_pages = 400, .layer_window = kWindow, .num_window_pages = places});
  const auto most_running = [&](std::size_t prompt, std::int32_t answer) {
    for (TokenId key = 0; key < 12; ++key) driver.add(prompt_of(prompt, key), answer);
    std::int32_t most = 0;
    while (driver.step()) most = std::max(most, driver.scheduler().stats().running);
    return most;
  };
  EXPECT_EQ(most_running(100, 100), 3);
  EXPECT_EQ(most_running(20, 12), 9) << "those of two pages need no more than two places";
  EXPECT_EQ(driver.done().size(), 24u);
  EXPECT_EQ(driver.preemptions(), 0u);

  KvPool tiny({.num_pages = 400, .layer_window = kWindow, .num_window_pages = kPast});
  EXPECT_THROW(Scheduler({.token_budget = 32}, tiny), Error);
}

// An equal prompt copies the last page of one that is being answered, as long as that has its window part.
TEST(WindowPlaces, APageWithoutItsPartIsNotCopied) {
  for (const bool late : {false, true}) {
    Driver driver({.max_running = 2, .token_budget = 33, .max_context = 1600},  // a decode row and two pages
                  {.num_pages = 200, .layer_window = kWindow, .num_window_pages = 24});
    const std::vector<TokenId> prompt = prompt_of(40, 1);
    driver.add(prompt, 1000);
    for (int i = 0; i < (late ? 600 : 20); ++i) driver.step();
    driver.add(prompt, 4);
    driver.drain();
    EXPECT_EQ(driver.done().size(), 2u);
    EXPECT_EQ(driver.scheduler().stats().branched_pages, late ? 0u : 1u);
  }
}

// With a place for every page nobody lacks one, so that all of them run.
TEST(WindowPlaces, OneForEveryPageBoundsNothing) {
  Driver driver({.max_running = 16, .token_budget = 512},
                {.num_pages = 40, .layer_window = 100, .num_window_pages = 40});
  for (TokenId key = 0; key < 12; ++key) driver.add(prompt_of(20, key), 10);
  driver.step();
  EXPECT_EQ(driver.scheduler().stats().running, 12);
  driver.drain();
}

// As FullPool in scheduler_random_test.cpp, at 100 % of pages and of places.
TEST(WindowPlaces, NeverDeadlock) {
  std::uint64_t preemptions = 0, copied = 0;
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    const auto window = static_cast<std::int32_t>(1 + random() % 50);
    const auto places = static_cast<std::int32_t>(WindowPlaces::enough(window, 1 + random() % 3, 32));
    Driver driver({.max_running = 16,
                   .token_budget = 32,
                   .swap_pages = seed % 4 < 2 ? 0 : 20,
                   .pinned_pages = seed % 3 == 0 ? 4 : 0},
                  {.num_pages = 14,
                   .prefix_cache = seed % 2 == 0,
                   .layer_window = window,
                   .num_window_pages = std::min(places, 14)});
    for (TokenId key = 0; key < 30; ++key) {
      driver.add(prompt_of(1 + random() % 60, key), static_cast<std::int32_t>(60 + random() % 60),
                 static_cast<Priority>(random() % 4), 0, 0, 32);
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
