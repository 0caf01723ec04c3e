// Requests and tokens a minute: what is let in, what is told, what is forgotten.
#include "admit/rate_limiter.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mlxs {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr RateLimits kSix{.requests_per_minute = 6, .tokens_per_minute = 0};
constexpr RateLimits kTokens{.requests_per_minute = 0, .tokens_per_minute = 600};

TEST(RateLimiter, AMinutesWorthAtOnceThenOneBecomesFreeAfterTheOther) {
  ManualClock clock;
  RateLimiter limiter(clock);
  for (int left = 5; left >= 0; --left) {
    const RateDecision decision = limiter.admit("a", kSix);
    EXPECT_TRUE(decision.admitted);
    EXPECT_EQ(decision.requests.limit, 6);
    EXPECT_EQ(decision.requests.remaining, left);
    EXPECT_EQ(decision.tokens.limit, 0);
  }
  RateDecision refused = limiter.admit("a", kSix);
  EXPECT_FALSE(refused.admitted);
  EXPECT_FALSE(refused.out_of_tokens);
  EXPECT_NEAR(refused.retry_after_s, 10, 1e-6);
  EXPECT_NEAR(refused.requests.reset_s, 60, 1e-6);
  EXPECT_TRUE(limiter.admit("b", kSix).admitted) << "others are not concerned";

  clock.advance(milliseconds(9'900));
  EXPECT_FALSE(limiter.admit("a", kSix).admitted);
  clock.advance(milliseconds(101));
  EXPECT_TRUE(limiter.admit("a", kSix).admitted) << "when it was told";
  EXPECT_FALSE(limiter.admit("a", kSix).admitted);
}

TEST(RateLimiter, TokensAreADebtThatIsPaidFirst) {
  ManualClock clock;
  RateLimiter limiter(clock);
  EXPECT_TRUE(limiter.admit("a", kTokens).admitted);
  limiter.charge("a", kTokens, 900);
  const RateDecision refused = limiter.admit("a", kTokens);
  EXPECT_FALSE(refused.admitted);
  EXPECT_TRUE(refused.out_of_tokens);
  EXPECT_EQ(refused.tokens.remaining, 0);
  EXPECT_NEAR(refused.retry_after_s, 30.1, 1e-6);  // 10 a second: 300 of debt, and one to begin with
  clock.advance(seconds(31));
  EXPECT_TRUE(limiter.admit("a", kTokens).admitted);
}

TEST(RateLimiter, ForgetsWhoIsFullAndNobodyInDebt) {
  ManualClock clock;
  clock.advance(seconds(1));
  RateLimiter limiter(clock);
  for (int i = 0; i < 100; ++i) limiter.admit("caller " + std::to_string(i), kTokens);
  limiter.charge("caller 7", kTokens, 100'000);
  clock.advance(seconds(121));
  EXPECT_FALSE(limiter.admit("caller 7", kTokens).admitted);
  EXPECT_LE(limiter.callers(), 2u);
}

}  // namespace
}  // namespace mlxs
