// Pinned prompts: what holds them, what lets them go, and that the bound holds.
#include "kv/pinned_prefixes.h"

#include <gtest/gtest.h>

#include <utility>

#include "unit/sched/driver.h"

namespace mlxs {
namespace {

using std::chrono::minutes;

class PinnedPrefixesTest : public testing::Test {
 protected:
  // Computes and closes it: cached, unless something else happens.
  void compute(const std::vector<TokenId>& tokens) {
    KvSequence sequence = pool_.open(tokens);
    ASSERT_TRUE(pool_.reserve(sequence, static_cast<std::int32_t>(tokens.size())));
    pool_.commit(sequence, tokens, static_cast<std::int32_t>(tokens.size()));
    pins_.used_by(sequence, now_);
    pool_.close(std::move(sequence));
  }
  void pin(const std::vector<TokenId>& tokens, std::int32_t count) {
    compute(tokens);
    pins_.pin(tokens, count, 0, now_);
  }
  // Takes every page that nobody holds.
  void flood() {
    compute(prompt_of(static_cast<std::size_t>(pool_.available()) * kPageTokens, 999));
    pool_.check();
  }
  std::int32_t cached(const std::vector<TokenId>& tokens) const { return pool_.peek_prefix(tokens).tokens; }

  KvPool pool_{{.num_pages = 20, .ttl = minutes(5)}};
  PinnedPrefixes pins_{pool_, 8, minutes(60)};
  TimePoint now_{};
};

TEST_F(PinnedPrefixesTest, StaysWhenOthersTakeEveryPageAndWhenUnusedPromptsExpire) {
  pin(prompt_of(60, 1), 50);
  compute(prompt_of(60, 2));
  flood();
  EXPECT_EQ(cached(prompt_of(60, 1)), 48) << "the full pages of 50 tokens";
  EXPECT_EQ(cached(prompt_of(60, 2)), 0);
  now_ += minutes(10);
  pool_.advance(now_);
  pins_.expire(now_);
  EXPECT_EQ(cached(prompt_of(60, 1)), 48);
  EXPECT_EQ(pins_.stats().pages, 3);
  EXPECT_EQ(pins_.stats().prompts, 1);
}

TEST_F(PinnedPrefixesTest, UnusedForItsTimeItIsLetGoAndUseRenewsIt) {
  pin(prompt_of(60, 1), 50);
  now_ += minutes(59);
  compute(prompt_of(49, 1));
  EXPECT_EQ(pins_.stats().hits, 1u);
  now_ += minutes(59);
  pins_.expire(now_);
  EXPECT_EQ(pins_.stats().prompts, 1);
  now_ += minutes(2);
  pins_.expire(now_);
  EXPECT_EQ(pins_.stats().prompts, 0);
  EXPECT_EQ(pins_.stats().expired, 1u);
  EXPECT_EQ(pool_.stats().held, 0);
}

TEST_F(PinnedPrefixesTest, TheBoundHoldsAndTheLeastRecentlyUsedMakesRoom) {
  pin(prompt_of(60, 1), 48);
  now_ += minutes(1);
  pin(prompt_of(60, 2), 48);
  now_ += minutes(1);
  compute(prompt_of(60, 1));
  pin(prompt_of(60, 3), 48);
  EXPECT_EQ(pins_.stats().prompts, 2);
  EXPECT_EQ(pins_.stats().pages, 6);
  EXPECT_EQ(pins_.stats().displaced, 1u);
  flood();
  EXPECT_EQ(cached(prompt_of(60, 1)), 48);
  EXPECT_EQ(cached(prompt_of(60, 2)), 0);
  pin(prompt_of(200, 4), 160);
  EXPECT_EQ(pins_.stats().refused, 1u) << "ten pages of eight";
  EXPECT_EQ(pins_.stats().prompts, 2) << "and pushes nobody out";
}

TEST_F(PinnedPrefixesTest, TheSamePromptIsPinnedOnceAndLessThanAPageNever) {
  pin(prompt_of(60, 1), 48);
  pin(prompt_of(60, 1), 48);
  pin(prompt_of(60, 2), 15);
  EXPECT_EQ(pins_.stats().pinned, 1u);
  EXPECT_EQ(pins_.stats().pages, 3);
}

TEST_F(PinnedPrefixesTest, APinMayBeKeptForLessThanAllAndForTheLongerOfTwoTimes) {
  compute(prompt_of(60, 1));
  compute(prompt_of(60, 2));
  pins_.pin(prompt_of(60, 1), 48, 0, now_, minutes(5));
  pins_.pin(prompt_of(60, 2), 48, 0, now_, minutes(5));
  pins_.pin(prompt_of(60, 2), 48, 0, now_, minutes(600));
  now_ += minutes(5);
  pins_.expire(now_);
  EXPECT_EQ(pins_.stats().prompts, 1);
  EXPECT_EQ(pins_.stats().expired, 1u);
  now_ += minutes(55);
  pins_.expire(now_);
  EXPECT_EQ(pins_.stats().prompts, 0) << "never longer than the time of all";
}

TEST_F(PinnedPrefixesTest, BeginningsOfOnePromptShareTheirPages) {
  compute(prompt_of(120, 1));
  for (const std::int32_t tokens : {48, 80, 112}) pins_.pin(prompt_of(120, 1), tokens, 0, now_);
  EXPECT_EQ(pins_.stats().prompts, 3);
  EXPECT_EQ(pins_.stats().pages, 7) << "of eight";
  EXPECT_EQ(pins_.stats().displaced, 0u);
  now_ += minutes(1);
  compute(prompt_of(49, 1));  // the shortest is used
  pin(prompt_of(60, 2), 48);
  EXPECT_EQ(pins_.stats().pages, 8 - 2) << "the longer two made room";
  EXPECT_EQ(pins_.stats().displaced, 2u);
  pins_.clear();
  EXPECT_EQ(pins_.stats().pages, 0);
  EXPECT_EQ(pool_.stats().held, 0);
}

// A request that fits only into what is pinned gets it, when nobody else will give pages back.
TEST(Pinning, GivesWayToARequestThatCouldNotRunOtherwise) {
  Driver driver({.pinned_pages = 8}, {.num_pages = 10});
  driver.add(prompt_of(100, 1), 4, Priority::kNormal, 0, 0, 100);
  driver.drain();
  ASSERT_EQ(driver.scheduler().stats().pins.pages, 6);
  driver.add(prompt_of(90, 2), 60);
  driver.drain();
  EXPECT_EQ(driver.done().size(), 2u);
  EXPECT_EQ(driver.scheduler().stats().pins.displaced, 1u);
}

TEST(Pinning, APinnedSystemPromptOutlivesAFloodOfOthers) {
  Driver driver({.pinned_pages = 8}, {.num_pages = 24});
  const auto ask = [&](TokenId question) {
    std::vector<TokenId> prompt = prompt_of(96, 1);
    for (const TokenId token : prompt_of(20, 50 + question)) prompt.push_back(token);
    driver.add(prompt, 4, Priority::kNormal, 0, 0, 96);
    driver.drain();
    return driver.scheduler().stats().cached_prompt_tokens;
  };
  EXPECT_EQ(ask(1), 0u);
  for (TokenId key = 2; key < 12; ++key) driver.add(prompt_of(200, key), 8);
  driver.drain();
  EXPECT_EQ(ask(2), 96u);
  EXPECT_EQ(driver.scheduler().stats().pins.hits, 1u);
}

}  // namespace
}  // namespace mlxs
