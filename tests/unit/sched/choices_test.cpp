// The n choices of one request: the same prompt n times, then answers of their own.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kv/kv_pool.h"
#include "sched/scheduler.h"

namespace mlxs {
namespace {

constexpr std::int32_t kChoices = 8;

struct Played {
  std::int32_t prompt_tokens_computed = 0;
  std::int32_t most_held = 0;  // pages, by choices that all have a token
  std::int32_t most_rows = 0;  // of choices that run together
};

// Runs the choices of a prompt to their ends; every choice samples tokens that no other does.
Played play(KvPool& pool, std::int32_t prompt_tokens, std::int32_t new_tokens) {
  std::vector<TokenId> prompt(static_cast<std::size_t>(prompt_tokens));
  std::iota(prompt.begin(), prompt.end(), 0);
  Scheduler scheduler({}, pool);
  for (RequestId id = 1; id <= kChoices; ++id) {
    EXPECT_EQ(scheduler.add({.id = id, .prompt = prompt, .max_new_tokens = new_tokens}), std::nullopt);
  }
  Played played;
  StepPlan plan;
  for (TokenId token = 0; !scheduler.idle(); ++token) {
    scheduler.plan({}, plan);
    played.most_rows = std::max(played.most_rows, plan.decode_rows);
    if (plan.decode_rows == kChoices) played.most_held = std::max(played.most_held, pool.stats().held);
    StepResult result{.step = plan.step, .spans = {}};
    for (const PlannedSpan& span : plan.spans) {
      played.prompt_tokens_computed +=
          std::max(0, std::min(prompt_tokens, span.start + span.count) - span.start);
      result.spans.push_back(
          {.request = span.request,
           .token = span.samples ? static_cast<TokenId>(span.request) * 1000 + token : -1});
    }
    scheduler.commit(result);
    scheduler.check();
  }
  return played;
}

TEST(Choices, HoldTheirPromptOnce) {
  KvPool pool({.num_pages = 64});
  const Played played = play(pool, 5 * kPageTokens + 7, 20);
  EXPECT_EQ(played.prompt_tokens_computed, 5 * kPageTokens + 7 + kChoices - 1)
      << "the last page, which each goes on to write, is copied for all but the first";
  // 87 + 20 tokens, of which the last is never fed back: 7 pages, 5 of them common.
  EXPECT_EQ(played.most_held, 5 + kChoices * 2);
  EXPECT_EQ(pool.stats().held, 0);
  EXPECT_EQ(pool.stats().cached, 5 + 2 * kChoices)
      << "the prompt's pages once, and of each answer a full page and a begun one";
}

TEST(Choices, WithoutAPrefixCacheEachHoldsItsOwn) {
  KvPool pool({.num_pages = 64, .prefix_cache = false});
  const Played played = play(pool, 5 * kPageTokens + 7, 20);
  EXPECT_EQ(played.prompt_tokens_computed, kChoices * (5 * kPageTokens + 7));
  EXPECT_EQ(played.most_held, kChoices * 7);
}

// Apart, one choice would fill more than half of the pool.
TEST(Choices, OfAPromptShorterThanAPageCopyIt) {
  KvPool pool({.num_pages = 64});
  EXPECT_EQ(play(pool, 9, 20).prompt_tokens_computed, 9 + kChoices - 1);
  KvPool other({.num_pages = 64});
  EXPECT_EQ(play(other, 3, 20).prompt_tokens_computed, 3 * kChoices) << "too little to wait for";
  KvPool third({.num_pages = 64});
  EXPECT_EQ(play(third, 9, 1).prompt_tokens_computed, 9 * kChoices) << "who ends at once leaves no page";
}

TEST(Choices, RunTogetherWhereTheyWouldNotFitApart) {
  KvPool pool({.num_pages = 40});
  const Played played = play(pool, 20 * kPageTokens + 1, 10);
  EXPECT_GE(played.most_rows, kChoices - 1);
  EXPECT_EQ(played.prompt_tokens_computed, 20 * kPageTokens + kChoices);
}

}  // namespace
}  // namespace mlxs
