// What the prefix cache forgets when, and what it says of a miss.
#include <gtest/gtest.h>

#include <numeric>
#include <utility>
#include <vector>

#include "kv/kv_pool.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

using Tokens = std::vector<TokenId>;
using std::chrono::seconds;

Tokens count_from(TokenId first, int count) {
  Tokens tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

Tokens operator+(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Looks `tokens` up, computes the rest, and leaves the whole in the cache.
PrefixMiss use(KvPool& pool, const Tokens& tokens, std::uint64_t salt = 0) {
  KvSequence sequence = pool.open(tokens, salt);
  const PrefixMiss miss = sequence.miss();
  EXPECT_TRUE(pool.reserve(sequence, static_cast<std::int32_t>(tokens.size())));
  pool.commit(sequence, tokens, static_cast<std::int32_t>(tokens.size()));
  pool.close(std::move(sequence));
  pool.check();
  return miss;
}

std::int32_t hit(const KvPool& pool, const Tokens& tokens) { return pool.peek_prefix(tokens).tokens; }

TimePoint at(int second) { return TimePoint{} + seconds(second); }

TEST(PrefixCache, ForgetsWhatWasNotUsedForItsTtl) {
  KvPool pool({.num_pages = 16, .ttl = seconds(300)});
  const Tokens a = count_from(0, 40), b = count_from(1000, 40);
  pool.advance(at(1000));
  use(pool, a);
  pool.advance(at(1200));
  use(pool, b);
  pool.advance(at(1299));
  EXPECT_EQ(hit(pool, a), 32);
  pool.advance(at(1300));
  EXPECT_EQ(hit(pool, a), 0);
  EXPECT_EQ(hit(pool, b), 32);
  EXPECT_EQ(pool.stats().expirations, 2u);
  EXPECT_EQ(pool.stats().evictions, 0u);
  use(pool, b);  // counts from its last use
  pool.advance(at(1599));
  EXPECT_EQ(hit(pool, b), 32);
  pool.advance(at(1));
  pool.check();
  EXPECT_EQ(hit(pool, b), 32) << "time does not go back";
  pool.advance(at(1600));
  EXPECT_EQ(pool.stats().free, 16);
}

TEST(PrefixCache, WhatIsHeldDoesNotAge) {
  KvPool pool({.num_pages = 16, .ttl = seconds(300)});
  const Tokens a = count_from(0, 40);
  use(pool, a);
  KvSequence reader = pool.open(a);
  pool.advance(at(10'000));
  EXPECT_EQ(hit(pool, a), 32);
  pool.close(std::move(reader));
  pool.advance(at(10'299));
  EXPECT_EQ(hit(pool, a), 32) << "its age begins when nobody holds it any more";
  pool.advance(at(10'300));
  EXPECT_EQ(hit(pool, a), 0);
  pool.check();
}

TEST(PrefixCache, KeepsAtMostSoManyPrompts) {
  KvPool pool({.num_pages = 64, .max_entries = 2});
  const Tokens trunk = count_from(0, 32);
  const Tokens left = trunk + count_from(100, 33), right = trunk + count_from(200, 33);
  const Tokens other = count_from(5000, 33);
  use(pool, left);
  EXPECT_EQ(pool.stats().entries, 1);
  use(pool, right);
  EXPECT_EQ(pool.stats().entries, 2) << "a common beginning is none of its own";
  use(pool, left + count_from(900, 20));
  EXPECT_EQ(pool.stats().entries, 2) << "the next turn of a conversation replaces the one before";
  use(pool, other);
  EXPECT_EQ(pool.stats().entries, 2);
  EXPECT_EQ(hit(pool, right), 32) << "only its own pages go, not those it shares";
  EXPECT_EQ(hit(pool, left), 64);
  EXPECT_EQ(hit(pool, other), 32);
  EXPECT_EQ(pool.stats().evictions, 2u);
  EXPECT_THROW(KvPool({.num_pages = 4, .max_entries = 0}), Error);
}

TEST(PrefixMiss, NamesTheTokenWherePromptsPart) {
  KvPool pool({.num_pages = 64});
  const Tokens a = count_from(0, 60);
  EXPECT_EQ(use(pool, a), (PrefixMiss{MissReason::kNew, 0}));
  EXPECT_EQ(use(pool, a), (PrefixMiss{MissReason::kNone, 0}));
  EXPECT_EQ(use(pool, count_from(0, 37) + count_from(800, 30)), (PrefixMiss{MissReason::kDiverged, 37}));
  EXPECT_EQ(use(pool, count_from(0, 39) + count_from(900, 30)), (PrefixMiss{MissReason::kDiverged, 39}))
      << "the closest of several counts";
  EXPECT_EQ(use(pool, count_from(0, 16) + count_from(900, 30)), (PrefixMiss{MissReason::kDiverged, 16}));
  EXPECT_EQ(use(pool, count_from(0, 5) + count_from(900, 30)), (PrefixMiss{MissReason::kDiverged, 5}));
  EXPECT_EQ(use(pool, count_from(7000, 40)), (PrefixMiss{MissReason::kNew, 0})) << "nothing in common";
  EXPECT_EQ(use(pool, count_from(7000, 80)), (PrefixMiss{MissReason::kNew, 32}))
      << "a known prompt, continued";
  EXPECT_EQ(use(pool, a, 9), (PrefixMiss{MissReason::kNew, 0})) << "other salts say nothing";
  EXPECT_EQ(use(pool, count_from(4000, 16)), (PrefixMiss{MissReason::kNone, 0})) << "too short to be cached";
  const auto misses = pool.stats().misses;
  EXPECT_EQ(misses, (std::array<std::uint64_t, kMissReasons>{2, 0, 0, 4, 4}));
}

TEST(PrefixMiss, TellsWhatWasThereOnce) {
  KvPool pool({.num_pages = 6, .ttl = seconds(300)});
  const Tokens a = count_from(0, 40), b = count_from(1000, 90);
  use(pool, a);
  use(pool, b);  // takes all six pages
  EXPECT_EQ(use(pool, a), (PrefixMiss{MissReason::kEvicted, 0}));
  pool.advance(at(300));
  EXPECT_EQ(use(pool, a), (PrefixMiss{MissReason::kExpired, 0}));
  EXPECT_EQ(use(pool, a), (PrefixMiss{MissReason::kNone, 0}));
  pool.drop_cache();
  EXPECT_EQ(use(pool, a), (PrefixMiss{MissReason::kNew, 0})) << "dropped as broken: not to be waited for";
}

// The memory of what was there has as many slots as it was made with, however much goes by.
TEST(PrefixMiss, ForgetsInTheEnd) {
  KvPool pool({.num_pages = 2});
  const Tokens first = count_from(0, 17);
  use(pool, first);
  for (TokenId i = 1; i <= 1000; ++i) use(pool, count_from(i * 100, 32));
  EXPECT_EQ(use(pool, first), (PrefixMiss{MissReason::kNew, 0}));
}

}  // namespace
}  // namespace mlxs
